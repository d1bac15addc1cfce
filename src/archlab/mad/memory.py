"""Memory of trials at their peak, found without computing them."""

import functools
from collections.abc import Iterable
from typing import Any

import torch

from archlab.architectures import Architecture
from archlab.architectures.backbones import Backbone
from archlab.errors import ArchlabError
from archlab.format import count
from archlab.isolation import undone
from archlab.layers.contract import is_third_party
from archlab.machine import Device, available_bytes, query_gpus
from archlab.mad.learner import Examples, Objective, split_tensors
from archlab.mad.recipe import Recipe
from archlab.mad.trial import Trial
from archlab.tasks import Task
from archlab.training.memory import FRAGMENTATION, LONG_STEP, LongStepError, few_sequences, step_bytes

PROCESS_BYTES = 350 << 20
"""Bytes of a worker before it trains: Python, PyTorch and its libraries."""
GPU_PROCESS_BYTES = 600 << 20
"""Bytes of a GPU that a worker takes before it trains: the CUDA context, and the work areas of libraries."""
MOST_TOGETHER = 8
"""Trials that a GPU worker trains together unless told otherwise: more than a grid has, or less where memory is short."""
FILLING = 1 << 20
"""Tokens of a batch times width from which on a step fills a GPU by the roofline model: six trials together take about six times
as long as one, while racing could leave five of them out."""

MOST_LOOKED_AT = 8
"""Trials whose step is run without data to find the one that takes most."""


def peak_bytes(trial: Trial) -> int:
    """Bytes that a worker needs for the trial, its process aside.

    The three splits of the data; the most that tensors take at once in a training step, which runs on tensors that have
    shapes and no data; and what the allocator adds. Of a layer from outside archlab that needs data, only the weights and
    what comes before it are counted.
    """
    recipe = trial.recipe
    batch = min(recipe.batch_size, trial.setting.num_train_examples)
    # Trials that agree in these fields of the recipe are looked at once.
    reduced = Recipe(batch_size=batch, norm=recipe.norm, precision=recipe.precision)
    step = _step_bytes(trial.architecture, trial.setting, trial.dim, reduced, trial.device)
    sequences = trial.setting.num_train_examples + 2 * recipe.num_evaluation
    return round(FRAGMENTATION * (step + 2 * 8 * sequences * trial.setting.input_length))


@functools.cache
@undone()
def _step_bytes(architecture: Architecture, setting: Task, dim: int, recipe: Recipe, device: Device) -> int:
    """The most bytes of tensors. Layers that walk over a large batch block by block have hundred thousands of operations: then
    few sequences stand for the batch, which is less than 2 % off."""
    examples = Examples.of(*split_tensors(setting, "train", recipe.batch_size, 0, "cpu"))
    shape: dict[str, Any] = {"vocab_size": setting.vocab_size, "dim": dim, "backbone": setting.backbone, "norm": recipe.norm}

    def build() -> Backbone:
        return architecture.build(max_length=setting.length, **shape)

    def step(of: Iterable[torch.Tensor], **more: Any) -> int:
        return step_bytes(
            4 * architecture.num_params(length=setting.length, **shape),
            build,
            lambda model, mode: Objective(model, recipe)(*(mode.from_tensor(x) for x in of)),
            on_gpu=device == "cuda",
            until_error=any(is_third_party(layer) for layer in architecture.layers),
            **more,
        )

    try:
        return step(examples, most_operations=LONG_STEP)
    except LongStepError:
        with torch.device("meta"):
            weights = [weight.numel() for weight in build().parameters()]
        few = few_sequences([*weights, dim, setting.length, setting.input_length, setting.vocab_size, examples.labels.shape[1]])
        if few is None or 2 * few > recipe.batch_size:
            return step(examples)
        return step([x[:few] for x in examples], few=few, batch=recipe.batch_size)


def worker_bytes(trials: list[Trial], population: int = 1) -> int:
    """The bytes that a worker needs for the trial that takes the most, its process included; 0 if there is none."""
    return population * _most_expensive(trials)[0] + PROCESS_BYTES if trials else 0


def check_memory(trials: list[Trial], num_workers: int, population: int = 1) -> int:
    """The bytes that all workers need at once, by the trial that takes the most; refuses more than this machine's memory."""
    if not trials:
        return 0
    most, trial = _most_expensive(trials)
    workers = min(num_workers, len(trials))
    gpus = _gpu_bytes("memory.total") if trial.device == "cuda" else []
    own = GPU_PROCESS_BYTES if gpus else PROCESS_BYTES
    sharing = -(-workers // len(gpus)) if gpus else workers
    needed, available = sharing * (population * most + own), min(gpus) if gpus else available_bytes()
    if needed > available and (gpus or trial.device == "cpu"):
        fitting = available // (population * most + own) * max(len(gpus), 1)
        smaller = "a smaller batch or length" if population == 1 else "a smaller population (--population)"
        fix = f"{count(fitting, 'worker')} (--workers)" if fitting else smaller
        has = f"a GPU has {available / 2**30:.1f}" if gpus else f"{available / 2**30:.1f} GiB are free"
        raise ArchlabError(
            f"{sharing} workers need {needed / 2**30:.1f} GiB for {trial.architecture.label} on {trial.setting}, {has}: use {fix}"
        )
    return workers * (population * most + own)


def fitting_population(trials: list[Trial], num_workers: int) -> int:
    """How many trials a worker should train together: one on a CPU, and where most of the work is in steps that fill a GPU; else
    as many as fit (see docs/speed.md)."""
    if not trials or trials[0].device == "cpu":
        return 1
    filling = sum(trial.flops for trial in trials if _tokens(trial) * trial.dim >= FILLING)
    if 2 * filling >= sum(trial.flops for trial in trials):
        return 1
    free = _gpu_bytes("memory.free")
    workers_a_gpu = -(-num_workers // len(free)) if free else 1
    return max(1, min(MOST_TOGETHER, min(free, default=0) // (workers_a_gpu * _most_expensive(trials)[0])))


def _gpu_bytes(field: str) -> list[int]:
    """A field of nvidia-smi in bytes, for each GPU; empty if it does not say."""
    return [int(mebibytes) << 20 for mebibytes in query_gpus(field) if mebibytes.isdigit()]


def _tokens(trial: Trial) -> int:
    """Tokens of a batch."""
    return min(trial.recipe.batch_size, trial.setting.num_train_examples) * trial.setting.input_length


def _most_expensive(trials: list[Trial]) -> tuple[int, Trial]:
    """The highest peak in bytes, and its trial, among the few that by and large keep most: one of each architecture, of
    architectures of the same kinds of layers the one with the most FLOPs, and of these the :data:`MOST_LOOKED_AT` first."""

    def kept(trial: Trial) -> int:  # of each token some 24 widths a layer, and the logits
        setting = trial.setting
        return _tokens(trial) * (24 * len(trial.architecture.layers) * trial.dim + setting.vocab_size)

    def flops(trial: Trial) -> float:
        return trial.flops / trial.num_steps

    largest: dict[str, Trial] = {}
    for trial in sorted(trials, key=kept, reverse=True):
        largest.setdefault(str(trial.architecture), trial)
    of_kind: dict[tuple[str, ...], Trial] = {}
    for trial in sorted(largest.values(), key=flops, reverse=True):
        of_kind.setdefault(tuple(sorted({layer.name for layer in trial.architecture.layers})), trial)
    few = list(of_kind.values())[:MOST_LOOKED_AT]
    return max(((peak_bytes(trial), trial) for trial in few), key=lambda found: found[0])
