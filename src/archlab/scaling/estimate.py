"""Cost of training runs: seconds, and memory at the peak."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from archlab.isolation import undone
from archlab.machine import seconds_of, single_thread
from archlab.scaling.ladder import Ladder
from archlab.scaling.objective import NextToken
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_plan import LMRun, own_fractions
from archlab.training.memory import FRAGMENTATION, step_bytes
from archlab.training.optimiser import update

_MOST_EXPENSIVE_STEP = 5e10
"""FLOPs of a step beyond which none is timed: the largest of its architecture that was stands for it."""
_NEXT_STEP = 1.5
"""FLOPs of the next step that is timed over those of the last one, which stands for all between."""


@dataclass(frozen=True)
class Cost:
    """Cost of one training run."""

    seconds: float
    """Seconds on one thread of this machine, or on one accelerator."""
    bytes: int
    """Bytes at the peak of a step: with the whole batch at once, the process aside; on an accelerator by :func:`device_bytes`."""


RECIPE: dict[str, Any] = {"precision": "bf16", "recompute": True, "micro_batch": 4}
"""Fields of the recipe with which a plan for accelerators is trained, and its memory is estimated."""
MEMORY = 80e9
"""Bytes of an accelerator, unless a ladder says otherwise."""


def plan_costs(runs: Iterable[LMRun], ladder: Ladder) -> list[Cost]:
    """Costs on the accelerators of a ladder; without a ``peak_flops`` on one thread of this machine, by timing steps."""
    return measured_costs(runs) if ladder.peak_flops is None else stated_costs(runs, ladder.flops_per_second)


def device_bytes(run: LMRun, recipe: LMRecipe | None = None, gpus: int = 1) -> int:
    """Bytes that a step takes on each accelerator, in bfloat16: weights, gradients, AdamW's moments, activations, logits.

    The first three are 16 bytes a parameter, shared by the accelerators. Each computes a micro-batch: for every token three
    copies of the logits in float32, and 28 bytes a layer and unit of width; with recomputing 4, and one layer's 28. The 28 are
    what a Transformer++ takes; layers that keep more, such as scans by PyTorch's operations, take more.
    """
    used = recipe or LMRecipe(**RECIPE)
    share = -(-run.batch_size // gpus)
    sequences = min(used.micro_batch or share, share)
    layers = len(run.architecture.layers)
    per_width = 4 * layers + 28 if used.recompute else 28 * layers
    return round(16 * run.params / gpus + sequences * run.length * (12 * run.vocab_size + per_width * run.dim))


def measured_costs(runs: Iterable[LMRun]) -> list[Cost]:
    """Costs on one thread of this machine, by timing a few training steps of every architecture at some of its sizes.

    The bytes are counted at an architecture's largest size; those of its others are to them as :func:`device_bytes` has it.
    """
    runs = list(runs)
    known: dict[tuple[Any, ...], float] = {}
    timed: dict[str, tuple[float, float]] = {}  # FLOPs of the largest timed step, and its FLOP/s
    largest: dict[str, LMRun] = {}
    for run in sorted(runs, key=_step_flops):
        largest[run.label], flops = run, _step_flops(run)
        if run.label not in timed or _NEXT_STEP * timed[run.label][0] <= flops <= _MOST_EXPENSIVE_STEP:
            timed[run.label] = flops, flops / _step_seconds(run)
        known.setdefault(_kind(run), timed[run.label][1])
    counted = {label: _peak_bytes(run) / device_bytes(run, LMRecipe()) for label, run in largest.items()}
    return [
        Cost(fraction * run.flops / known[_kind(run)], round(counted[run.label] * device_bytes(run, LMRecipe())))
        for run, fraction in zip(runs, own_fractions(runs), strict=True)
    ]


def stated_costs(runs: Iterable[LMRun], flops_per_second: Callable[[str], float]) -> list[Cost]:
    """Costs on one accelerator that reaches so many FLOP/s with an architecture, by its label.

    Time goes by the FLOPs that are executed: every expert computes every token, whatever the budget counts.
    """
    costs, runs = [], list(runs)
    for run, fraction in zip(runs, own_fractions(runs), strict=True):
        forward = run.architecture.flops(length=run.length, dim=run.dim, vocab_size=run.vocab_size)
        seconds = fraction * 3 * forward * run.steps * run.batch_size / flops_per_second(run.label)
        costs.append(Cost(seconds, device_bytes(run)))
    return costs


def _kind(run: LMRun) -> tuple[Any, ...]:
    return run.label, run.spec, run.dim, run.batch_size, run.length, run.vocab_size, run.backbone


def _step_flops(run: LMRun) -> float:
    return run.flops / run.steps


@undone()
def _peak_bytes(run: LMRun) -> int:
    tokens = torch.zeros(run.batch_size, run.length + 1, dtype=torch.int64)
    step = step_bytes(4 * run.params, lambda: _objective(run), lambda objective, mode: objective(mode.from_tensor(tokens)))
    return round(FRAGMENTATION * step)


@undone()
def _step_seconds(run: LMRun) -> float:
    """Processor time of a training step on one thread: the machine's other work does not count."""
    with single_thread():
        torch.manual_seed(0)
        objective = _objective(run)
        tokens = torch.randint(run.vocab_size, (run.batch_size, run.length + 1))
        optimizer = torch.optim.AdamW(objective.parameters(), fused=True)

        def step() -> None:
            torch.autograd.backward(objective(tokens))
            update(objective, optimizer, grad_clip=0.0)

        return min(seconds_of(step, 4, time.process_time)[1:])


def _objective(run: LMRun) -> NextToken:
    model = run.architecture.build(vocab_size=run.vocab_size, max_length=run.length, dim=run.dim, backbone=run.backbone)
    return NextToken(model, LMRecipe())
