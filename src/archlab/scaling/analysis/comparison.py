"""Which of two architectures is better for the same compute, and how much compute that is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from archlab.errors import ArchlabError
from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import PowerLaw, Resampling, StateFit, fit_power_law, fit_state
from archlab.scaling.laws import Estimate, Laws
from archlab.scaling.study import Family, Minima


@dataclass(frozen=True)
class Comparison:
    """Two architectures at one budget, each at its own best size."""

    first: str
    second: str
    budget: float
    difference: Estimate
    """Loss of the second minus loss of the first, in nats a token: positive where the first is better."""
    multiplier: Estimate | None
    """How many times the budget the second needs for the first's loss, by the power law through its minima; None if it has
    fewer than two, or they do not fall with the budget."""


def compare(first: Family, second: Family, resampling: Resampling) -> list[Comparison]:
    """At every budget at which both have a minimum between their sizes."""
    return [
        Comparison(
            first=first.label,
            second=second.label,
            budget=budget,
            difference=estimate(partial(_difference, budget=budget), [first, second], resampling),
            multiplier=_multiplier(first, second, budget, resampling),
        )
        for budget in sorted(first.minima.keys() & second.minima.keys())
    ]


def _difference(minima: list[Minima], budget: float) -> float:
    return minima[1][budget].loss - minima[0][budget].loss


def _multiplier(first: Family, second: Family, budget: float, resampling: Resampling) -> Estimate | None:
    if len(second.minima) < 2 or not _loss_law(second.minima).exponent < 0:
        return None
    found = estimate(partial(_log_multiplier, budget=budget), [first, second], resampling)
    with np.errstate(over="ignore"):
        low, high = (None if bound is None else float(np.exp(bound)) for bound in (found.low, found.high))
        value = float(np.exp(found.value))
    if not all(bound is None or np.isfinite(bound) for bound in (value, low, high)):
        return None  # so little falls that no number of times is too many
    return Estimate(value, low, high)


def _log_multiplier(minima: list[Minima], budget: float) -> float:
    ours, law = minima[0][budget], _loss_law(minima[1])
    return (math.log(ours.loss) - math.log(law.coefficient)) / law.exponent - math.log(ours.flops)


def _loss_law(minima: Minima) -> PowerLaw:
    return fit_power_law(x=[m.flops for m in minima.values()], y=[m.loss for m in minima.values()])


def state_law(laws: Sequence[Laws], resampling: Resampling) -> StateFit | str:
    """Compute-optimal perplexity over the state carried at the optimum, over all architectures; or why there is none."""
    points = [(*point, one.family.label) for one in laws for point in one.state_points()]
    state, perplexity, group = zip(*points, strict=True) if points else ((), (), ())
    try:
        return fit_state(perplexity=perplexity, state=state, group=group, resampling=resampling)
    except ArchlabError as error:
        return str(error)
