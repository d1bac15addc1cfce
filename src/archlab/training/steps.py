"""The course of a training run: the learning rate of each step, the steps that are evaluated, the step that diverges."""

import math
from collections.abc import Sequence
from typing import Literal

REPORT_SECONDS = 1.0
"""Seconds between two reports of a running training."""


def learning_rate(
    step: int, num_steps: int, schedule: Literal["cosine", "constant", "wsd"], *, warmup: float, final: float, decay: float = 0.0
) -> float:
    """Learning rate of a step, from 1 on, as a fraction of the peak.

    After a linear warm-up over a fraction of the steps it follows half a cosine, is constant, or is stable and then linear over
    the fraction ``decay`` of the steps (wsd, arXiv 2404.06395); cosine and wsd end at ``final``.
    """
    rise = math.floor(warmup * num_steps)
    if step <= rise:
        return step / rise
    if schedule == "constant":
        return 1.0
    if schedule == "wsd":
        first = max(num_steps - max(math.floor(decay * num_steps), 1), rise)
        done = max(step - first, 0) / max(num_steps - first, 1)
        return 1 - (1 - final) * done
    done = (step - rise - 1) / max(num_steps - rise - 1, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


def evenly_spaced(number: int, num_steps: int) -> frozenset[int]:
    """Evenly spaced steps, as many as asked for where there are so many, the last step among them."""
    return frozenset(round(num_steps * i / number) for i in range(1, number + 1)) - {0}


def diverged_step(last: int, losses: Sequence[float]) -> int | None:
    """First step whose loss is NaN or infinite, of the steps up to ``last`` that have these losses; None if there is none."""
    return next((step for step, loss in enumerate(losses, last - len(losses) + 1) if not math.isfinite(loss)), None)
