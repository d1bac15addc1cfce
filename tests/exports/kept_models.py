"""Kept models that have not been trained, and what is loaded of them where archlab cannot be imported."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from tests.scaling.language_models import tiny_corpus, tiny_trial
from tests.scaling.synthetic_ladders import result

from archlab.scaling.models import KeptModel, load_model, save_model
from archlab.scaling.processes import Processes
from archlab.scaling.training_plan import padded
from archlab.store.kept import beside


def keep(folder: Path, spec: str, *, dim: int = 16, vocab_multiple: int = 1, **values) -> KeptModel:
    """The model of a spec as it is initialised, but for gates and biases that start at 0, kept beside the store ``a.db``."""
    corpus = tiny_corpus(folder)
    trial = tiny_trial(corpus, spec=spec, dim=dim, **values)
    rows = {"vocab_multiple": vocab_multiple, "vocab_size": padded(corpus.vocab_size, vocab_multiple)}
    trial = replace(trial, run=replace(trial.run, **rows))
    run = trial.run
    torch.manual_seed(0)
    sizes = {"vocab_size": run.vocab_size, "max_length": run.length, "dim": run.dim}
    model = run.architecture.build(**sizes, backbone=run.backbone, embedding_std=1.0)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    save_model(beside(folder / "a.db", "models"), trial, result(2.0), model, corpus, Processes(torch.device("cpu")))
    return load_model(trial.key, folder / "a.db")


@contextmanager
def without_archlab() -> Iterator[None]:
    """Nothing of archlab can be imported, and nothing of it is loaded."""

    def ours(name: str) -> bool:
        return name.partition(".")[0] == "archlab"

    class Refusal:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if ours(name):
                raise ImportError(f"{name} is not here")

    hidden = {name: sys.modules.pop(name) for name in [*sys.modules] if ours(name)}
    sys.meta_path.insert(0, Refusal)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(Refusal)  # type: ignore[arg-type]
        sys.modules.update(hidden)


def imported(folder: Path, module: str) -> ModuleType:
    """A module of an exported folder, imported where archlab is not."""
    (folder / "__init__.py").touch()
    if str(folder.parent) not in sys.path:
        sys.path.append(str(folder.parent))
    importlib.invalidate_caches()
    with without_archlab():
        return importlib.import_module(f"{folder.name}.{module}")
