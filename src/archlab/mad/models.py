"""Kept models of trials: the weights that a result scores, written as soon as a training ends."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from typing_extensions import override

from archlab.architectures import Architecture
from archlab.architectures.backbones import Backbone
from archlab.jobs.executor import Thresholds
from archlab.machine import Device
from archlab.mad.selection import choose, grid_groups
from archlab.mad.train import build_model, train_together
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.store.kept import SHOWN, KeptFiles, kept_beside, with_weights, write_model

Keep = Literal["weights", "none"]
"""A choice of what stays of a trial beside its result."""
NAMES = "ARCHITECTURE@TASK"
"""The form of the name that finds the kept model of a trial, beside its key."""


@dataclass(frozen=True)
class _Remembering(Architecture):
    """An architecture that remembers the models that it builds; otherwise equal to the one that it is made of."""

    built: list[Backbone] = field(default_factory=list, compare=False)

    __hash__ = Architecture.__hash__

    @override
    def build(self, **sizes: Any) -> Backbone:
        self.built.append(super().build(**sizes))
        return self.built[-1]


def train_and_keep(
    trials: Sequence[Trial],
    on_progress: Callable[[int, Progress], None],
    thresholds: Sequence[Thresholds],
    *,
    models: Path,
) -> Iterator[tuple[int, TrialResult]]:
    """Train as :func:`archlab.mad.train.train_together`, and write each model into the folder before its result is given.

    When a result is given, its model has the weights that it scores: those of the selected step. A trial that diverged scores
    chance, and has none. The training itself is the same code, so keys and results are too.
    """
    remembering = [_Remembering(trial.architecture.layers, trial.architecture.name) for trial in trials]
    watched = [replace(trial, architecture=one) for trial, one in zip(trials, remembering, strict=True)]
    for index, result in train_together(watched, on_progress, thresholds):
        trial, (model,) = trials[index], remembering[index].built
        remembering[index].built.clear()
        why = ""
        if result.status != "diverged":
            why = write_model(models, trial.key, trial.to_dict(), result.to_dict(), model.state_dict())
        yield index, replace(result, not_kept=why)


@dataclass(frozen=True)
class KeptTrial(KeptFiles[Trial, TrialResult]):
    """The trained model of a trial, ready to compute."""

    model: Backbone
    """Token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``, in evaluation mode."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.model.embedding.weight.device

    def __str__(self) -> str:
        """Key, architecture, setting, grid point and seed, for messages."""
        return title(self)


def load(kept: KeptFiles[Trial, TrialResult], device: Device) -> KeptTrial:
    """The model in a folder; refuses damaged files, and weights that do not fit the layers of this archlab."""
    model = build_model(replace(kept.trial, device="cpu"))
    return KeptTrial(**vars(kept), model=with_weights(kept, model, str(kept.trial.architecture), device))


def trial_models(store: str | os.PathLike[str]) -> list[KeptFiles[Trial, TrialResult]]:
    """The models of trials beside a store, by architecture, setting and seed."""
    return sorted(kept_beside(store, read_trial), key=lambda one: str(one.trial))


def read_trial(document: dict[str, Any]) -> tuple[Trial, TrialResult] | None:
    """Trial and result of ``trial.json``; None for a training run of a language model."""
    if "task" not in document["trial"]:
        return None
    return Trial.from_dict(document["trial"]), TrialResult.from_dict(document["result"])


def matching(name: str, kept: Sequence[KeptFiles[Trial, TrialResult]]) -> list[KeptFiles[Trial, TrialResult]]:
    """The models that a key's beginning names; or of an architecture's label, alone or with a task or setting, those of the
    grid points that are scored, as far as they are kept."""
    found = [one for one in kept if name and one.key.startswith(name)]
    if found:
        return found
    named = [one for one in kept if name in _names(one.trial)]
    groups = grid_groups((one.trial, one) for one in named).values()
    scored = [choose([(trial, one.result) for trial, one in group]) for group in groups]
    chosen = {ended[0] for ended in scored if ended is not None}
    return [one for one in named if one.trial in chosen]


def _names(trial: Trial) -> set[str]:
    """Everything that a trial is called, but its key: knobs may be left out, for protocols set those that a spec leaves open."""
    label, setting = trial.architecture.label, trial.setting
    labels = {label, re.sub(r"\([^()]*=[^()]*\)", "", label)}
    return labels | {f"{one}@{task}" for one in labels for task in (setting.name, setting.short, str(setting))}


def title(kept: KeptFiles[Trial, TrialResult]) -> str:
    """Key, architecture, setting, grid point and seed, for messages."""
    return f"{kept.key[:SHOWN]} ({kept.trial})"
