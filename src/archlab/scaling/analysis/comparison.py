"""Compares architectures at equal compute: the difference of their losses, and the compute that it is worth."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archlab.errors import ArchlabError
from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import PowerLaw, Resampling, StateFit, fit_power_law, fit_state
from archlab.scaling.laws import Estimate, Laws
from archlab.scaling.study import Minima, RunTable


@dataclass(frozen=True)
class Comparison:
    """Two architectures at one budget, each at its own best size."""

    first: str
    second: str
    budget: float
    difference: Estimate
    """Loss of the second minus loss of the first, in nats a token: positive where the first is better."""
    multiplier: Estimate | None
    """Compute that the second needs for the first's loss, over the budget, by the power law through its minima; None if it has
    fewer than two, or they do not fall with the budget."""


def compare(first: RunTable, second: RunTable, resampling: Resampling) -> list[Comparison]:
    """Compare two architectures at every budget at which both have a minimum between their sizes."""
    budgets = sorted(first.minima.keys() & second.minima.keys())
    return [_compare_at(budget, first, second, resampling) for budget in budgets]


def compare_with_best(tables: Sequence[RunTable], resampling: Resampling) -> list[Comparison]:
    """Compare the architecture of least loss with every other, at the largest budget at which several have a minimum.

    The first architecture of each comparison is the best, the second ones come by rising loss; none if no budget has two minima.
    """
    minima = Counter(budget for table in tables for budget in table.minima)
    shared = [budget for budget, number in minima.items() if number > 1]
    if not shared:
        return []
    budget = max(shared)
    best, *others = sorted((table for table in tables if budget in table.minima), key=lambda table: table.minima[budget].loss)
    return [_compare_at(budget, best, other, resampling) for other in others]


def _compare_at(budget: float, first: RunTable, second: RunTable, resampling: Resampling) -> Comparison:
    difference = estimate(lambda minima: minima[1][budget].loss - minima[0][budget].loss, [first, second], resampling)
    return Comparison(first.label, second.label, budget, difference, _multiplier(first, second, budget, resampling))


def _multiplier(first: RunTable, second: RunTable, budget: float, resampling: Resampling) -> Estimate | None:
    if len(second.minima) < 2 or not _loss_law(second.minima).exponent < 0:
        return None

    def logarithm(minima: list[Minima]) -> float:
        reached, law = minima[0][budget], _loss_law(minima[1])
        return (math.log(reached.loss) - math.log(law.coefficient)) / law.exponent - math.log(reached.flops)

    found = estimate(logarithm, [first, second], resampling)
    with np.errstate(over="ignore"):
        value, low, high = (None if x is None else float(np.exp(x)) for x in (found.value, found.low, found.high))
    if value is None or not all(x is None or np.isfinite(x) for x in (value, low, high)):
        return None  # the loss falls so little that the number overflows
    return Estimate(value, low, high)


def _loss_law(minima: Minima) -> PowerLaw:
    return fit_power_law(x=[m.flops for m in minima.values()], y=[m.loss for m in minima.values()])


def state_law(laws: Sequence[Laws], resampling: Resampling) -> StateFit | str:
    """Fit compute-optimal perplexity over the state at the optimum, over all architectures; or say why there is no fit."""
    points = [(*point, one.runs.label) for one in laws for point in one.state_points()]
    state, perplexity, group = zip(*points, strict=True) if points else ((), (), ())
    try:
        return fit_state(perplexity=perplexity, state=state, group=group, resampling=resampling)
    except ArchlabError as error:
        return str(error)
