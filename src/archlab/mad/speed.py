"""Speed of training steps: measured, and remembered for estimates on the same machine."""

import json
import os
import socket
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from archlab.files import cache_folder, write_whole
from archlab.machine import Ceilings, Device, ceilings, cpu_name, seconds_of
from archlab.mad.trial import Trial

if TYPE_CHECKING:
    from archlab.jobs.executor import Executor

_TIMED_TOKENS = 4096
"""Tokens of a timed batch: enough to reach the usual speed, few enough to be quick at any width."""


def family(trial: Trial) -> Hashable:
    """Architecture, task, width and device: trials of one family have the speed, in FLOP/s, of the cheapest of them."""
    return trial.architecture, trial.setting.name, trial.dim, trial.device


def cheapest(trials: Iterable[Trial]) -> dict[Hashable, Trial]:
    """The trial of each family whose steps are timed for all of it."""
    found: dict[Hashable, Trial] = {}
    for trial in sorted(trials, key=lambda t: t.setting.input_length * t.setting.vocab_size):
        found.setdefault(family(trial), trial)
    return found


def kind(trial: Trial) -> str:
    """Name that the speed of a trial is remembered by: its family, its recipe where that decides the speed, and its code."""
    recipe = trial.recipe
    options = f"{trial.device} {recipe.precision} {recipe.kernels}" + (" compiled" if recipe.compiled else "")
    return f"{trial.architecture} | {trial.setting.name} | width {trial.dim} | {options} | {trial.code}"


def measure(trials: Iterable[Trial], executor: "Executor[Any, Any, Any]") -> Iterator[tuple[Trial, float] | Ceilings]:
    """The ceilings, then each trial's training FLOP/s, all trials on one device, with all workers busy at once; medians over the
    workers. The executor's work is :func:`measure_jobs`."""
    trials = list(trials)
    found = _everywhere(executor, trials[0].device)
    yield Ceilings(gemm=median(one.gemm for one in found), copy=median(one.copy for one in found))
    for trial in trials:
        yield trial, median(_everywhere(executor, trial))


def _everywhere(executor: "Executor[Any, Any, Any]", job: Trial | Device) -> list[Any]:
    """Submit a job as often as there are workers, so that each takes one; their results."""
    submitted = [executor.submit([job], lambda *_: None) for _ in range(executor.num_workers)]
    return [future.result() for (future,) in submitted]


def measure_jobs(jobs: Sequence[Trial | Device], on_progress: object, thresholds: object) -> Iterator[tuple[int, Any]]:
    """Measure the ceilings of a device, or the training FLOP/s of a trial; the work of an executor."""
    for index, job in enumerate(jobs):
        yield index, flops_per_second(job) if isinstance(job, Trial) else ceilings(job)


def flops_per_second(trial: Trial) -> float:
    """Training FLOP/s of a few real steps of the trial on this process's threads."""
    return timed_flops(trial) / min(step_seconds(trial)[1:])


def timed_flops(trial: Trial) -> float:
    """Training FLOPs of one of the steps that are timed."""
    return trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples) * _timed_batch(trial)


def _timed_batch(trial: Trial) -> int:
    return max(1, min(trial.recipe.batch_size, _TIMED_TOKENS // trial.setting.input_length))


def step_seconds(trial: Trial) -> list[float]:
    """Seconds of a few real steps in a row; the first compiles, if the recipe says so, and is never like the others."""
    import torch

    from archlab.mad.data import Examples
    from archlab.mad.programs import Eager
    from archlab.mad.train import make_learner
    from archlab.tasks import sample
    from archlab.training.context import computing

    batch = _timed_batch(trial)
    inputs, targets = (torch.from_numpy(x).to(trial.device) for x in sample(trial.setting, "train", batch, trial.seed))
    recipe = trial.recipe
    program = Eager([make_learner(trial, Examples.of(inputs, targets))])
    rows = torch.arange(batch, device=trial.device)
    with computing(recipe.kernels, recipe.precision, trial.device):
        return seconds_of(lambda: program.step([rows]).tolist(), 4)


@dataclass(frozen=True)
class Measurement:
    """Speeds measured on this machine."""

    when: str
    """Time of the last of them (UTC, ISO 8601)."""
    ceilings: Ceilings
    speeds: dict[str, float]
    """Training FLOP/s of a worker by :func:`kind`."""


def cache_path() -> Path:
    """The file of measurements: ``archlab/bench.json`` in the user's cache folder."""
    return cache_folder() / "bench.json"


def remember(ceilings: Ceilings, speeds: dict[str, float]) -> Measurement:
    """Keep a measurement for later estimates on this machine; other kinds measured before are kept."""
    before = remembered()
    measurement = Measurement(
        datetime.now(UTC).isoformat(timespec="minutes"), ceilings, (before.speeds if before else {}) | speeds
    )
    path = cache_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": _machine(), "when": measurement.when, "ceilings": vars(ceilings), "speeds": measurement.speeds}
    write_whole(path, json.dumps(document, indent=1))
    return measurement


def remembered() -> Measurement | None:
    """The last measurement on this machine with this PyTorch; None if there is none that can be read."""
    try:
        document = json.loads(cache_path().read_text(encoding="utf-8"))
        if document["machine"] != _machine():
            return None
        speeds = {str(name): float(speed) for name, speed in document["speeds"].items()}
        return Measurement(str(document["when"]), Ceilings(**document["ceilings"]), speeds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _machine() -> dict[str, Any]:
    return {"host": socket.gethostname(), "cpu": cpu_name(), "torch": version("torch"), "cores": os.cpu_count()}
