"""Kept language models: found by their training runs, loaded, with the tokenizer that their texts need."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from archlab.architectures.backbones import Backbone
from archlab.corpora import Corpus
from archlab.corpora.tokenizers import TOKENIZER_FILE, Tokenizer, load_tokenizer
from archlab.errors import ArchlabError
from archlab.format import human
from archlab.machine import Device
from archlab.scaling.processes import Processes
from archlab.scaling.result import LMResult
from archlab.scaling.store import StudyStore
from archlab.scaling.trial import LMTrial
from archlab.store.kept import SHOWN, KeptFiles, beside, kept_beside, only, with_weights, write_model
from archlab.training.context import initialising

Keep = Literal["weights", "checkpoints", "none"]
"""A choice of what stays of a finished training run: weights, the last checkpoint too, or nothing but the result."""
NAMES = "ARCHITECTURE@SIZE"
"""The form of the name that finds a kept language model, beside its key."""
_NEAR = 0.05
"""Largest relative distance of a size from the one that is asked for."""


def save_model(folder: Path, trial: LMTrial, result: LMResult, objective: nn.Module, corpus: Corpus, processes: Processes) -> str:
    """Write a trained model into ``folder/KEY``: weights, trial with result, tokenizer; called by all processes that share it.

    A process that is killed meanwhile leaves the whole folder or none. Returns why the first process could not write it, or
    nothing.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered: dict[str, Any] = get_model_state_dict(objective, options=options)  # by all
    if not processes.is_first:
        return ""
    weights = {name.removeprefix("model."): tensor for name, tensor in gathered.items()}
    files = [path for path in (corpus.folder / TOKENIZER_FILE,) if path.is_file()]
    return write_model(folder, trial.key, trial.to_dict(), result.to_dict(), weights, files)


@dataclass(frozen=True)
class KeptModel(KeptFiles[LMTrial, LMResult]):
    """A trained language model, ready to compute."""

    model: Backbone
    """Token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``, in evaluation mode."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Encodes documents (bytes) and decodes tokens; an ArchlabError says that its package is missing."""
        return load_tokenizer(self.trial.run.tokenizer, self.folder)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.model.embedding.weight.device

    def __str__(self) -> str:
        """Key, architecture and size, budget and seed, for messages."""
        return title(self)


def load_model(run: str, store: str | os.PathLike[str] = "archlab.db", *, device: Device = "cpu") -> KeptModel:
    """The language model that ``run`` names, see :func:`archlab.load_model`."""
    kept = language_models(store)
    if not kept:
        with StudyStore(store, create=False):  # which says that there is none
            pass
        raise ArchlabError(f"{beside(store, 'models')} has no models: `archlab scale run PLAN` keeps those that it trains")
    return load(only(run, matching(run, kept), kept, title, NAMES), device)


def load(kept: KeptFiles[LMTrial, LMResult], device: Device) -> KeptModel:
    """The model in a folder; refuses damaged files, and weights that do not fit the layers of this archlab."""
    run = kept.trial.run
    sizes: dict[str, Any] = {"vocab_size": run.vocab_size, "max_length": run.length, "dim": run.dim}
    with initialising(0):
        model = run.architecture.build(**sizes, backbone=run.backbone, embedding_std=kept.trial.recipe.embedding_std)
    return KeptModel(**vars(kept), model=with_weights(kept, model, run.spec, device))


def language_models(store: str | os.PathLike[str]) -> list[KeptFiles[LMTrial, LMResult]]:
    """The language models beside a store, by label and size."""

    def order(one: KeptFiles[LMTrial, LMResult]) -> tuple[str, int, float, int]:
        run = one.trial.run
        return run.label, run.params, run.budget, run.seed

    return sorted(kept_beside(store, read_training_run), key=order)


def read_training_run(document: dict[str, Any]) -> tuple[LMTrial, LMResult] | None:
    """Training run and result of ``trial.json``; None for a trial of a task."""
    if "task" in document["trial"]:
        return None
    return LMTrial.from_dict(document["trial"]), LMResult.from_dict(document["result"])


def matching(name: str, kept: Sequence[KeptFiles[LMTrial, LMResult]]) -> list[KeptFiles[LMTrial, LMResult]]:
    """The models that a key's beginning, a label, or a label with the number of parameters names."""
    found = [one for one in kept if name and one.key.startswith(name)]
    found = found or [one for one in kept if one.trial.run.label == name]
    label, _, size = name.rpartition("@")
    if found or not label:
        return found
    alike = [one for one in kept if one.trial.run.label == label]
    number = _parsed(size)
    return [one for one in alike if human(one.trial.run.params) == size] or [
        one for one in alike if number and abs(one.trial.run.params / number - 1) < _NEAR
    ]


def title(kept: KeptFiles[LMTrial, LMResult]) -> str:
    """Key, architecture and size, budget and seed, for messages."""
    run = kept.trial.run
    return f"{kept.key[:SHOWN]} ({run.label}@{human(run.params)}, {run.budget:.3g} FLOPs, seed {run.seed})"


def _parsed(size: str) -> float | None:
    """The number that :func:`human` wrote, or any other; None if it is none."""
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(size[-1:], 1.0)
    with suppress(ValueError):
        return float(size[:-1] if factor > 1 else size) * factor
    return None
