"""Checkpoints of a training: whole or not there, readable by any number of processes."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from archlab.scaling.processes import Processes

_LOG = "log.json"


class Checkpoints:
    """The latest checkpoint of a training in a folder of its own, which all its processes see."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes

    def save(self, step: int, objective: nn.Module, optimizer: Optimizer, log: dict[str, Any]) -> None:
        """Write parameters, optimiser and log (JSON-ready) after a step, then drop the checkpoint before it.

        A process that is killed meanwhile leaves the one before it as it was.
        """
        unfinished = self.folder / f"unfinished-{step}"
        if self.processes.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)
        self.processes.wait()
        model_state, optimizer_state = get_state_dict(objective, optimizer)
        state: dict[str, Any] = {"model": model_state, "optimizer": optimizer_state}
        with _without_warnings():
            save(state, checkpoint_id=unfinished, no_dist=not self.processes.sharded)
        if self.processes.is_first:
            with (unfinished / _LOG).open("w", encoding="utf-8") as file:
                json.dump(log, file)
                file.flush()
                os.fsync(file.fileno())
            place = self.folder / f"step-{step}"
            shutil.rmtree(place, ignore_errors=True)
            os.rename(unfinished, place)
            for other in self.folder.iterdir():
                if other != place:
                    shutil.rmtree(other, ignore_errors=True)
        self.processes.wait()

    def restore(self, objective: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
        """Load the latest checkpoint in place; its log, or None if there is none."""
        steps = [int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*")]
        step = self.processes.agree(max(steps, default=None))
        if step is None:
            return None
        place = self.folder / f"step-{step}"
        model_state, optimizer_state = get_state_dict(objective, optimizer)
        state: dict[str, Any] = {"model": model_state, "optimizer": optimizer_state}
        with _without_warnings():
            load(state, checkpoint_id=place, no_dist=not self.processes.sharded)
        set_state_dict(objective, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        log: dict[str, Any] = json.loads((place / _LOG).read_text(encoding="utf-8"))
        return log


@contextmanager
def _without_warnings() -> Iterator[None]:
    """One process alone is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
