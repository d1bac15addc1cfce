"""Intervals of what stands on IsoFLOP minima: the errors of the runs, carried on to first order (the delta method).

A bootstrap needs more runs than a budget has: of five sizes drawn anew many samples have no minimum. Here the scatter of the
runs about the parabolas of all budgets tells how large errors are, and how much two architectures share of them.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import t

from archlab.scaling.fits import IsoFlopMinimum, Resampling
from archlab.scaling.fits.columns import Floats
from archlab.scaling.laws import Estimate
from archlab.scaling.study import Family, Minima

Statistic = Callable[[list[Minima]], float]
"""Takes the minima of some architectures, by budget."""


def estimate(statistic: Statistic, families: Sequence[Family], resampling: Resampling) -> Estimate:
    """What a statistic of the families' minima gives, with an interval if there are runs to judge errors by.

    Errors are taken to be as large at every budget of an architecture, and as alike, between runs of two architectures at the
    same budget, place among the sizes and seed. The quantile is of Student's distribution, with as many degrees of freedom as
    the least certain of the architectures has runs beyond three for each parabola.

    Args:
        statistic: of the minima of the families, in their order.
        families: architectures.
        resampling: the confidence, and whether intervals are asked for.

    Raises:
        ArchlabError: the statistic refuses the minima.
    """
    minima = [family.minima for family in families]
    value = statistic(minima)
    errors = [_residuals(family) for family in families]
    freedom = min(np.isfinite(found).sum() - 3 * len(family.minima) for found, family in zip(errors, families, strict=True))
    if freedom < 1 or not resampling.resamples:
        return Estimate(value, None, None)
    slopes = [_slopes(statistic, minima, family, place) for place, family in enumerate(families)]
    deviation = float(t.ppf((1 + resampling.confidence) / 2, freedom)) * _variance(families, errors, slopes) ** 0.5
    return Estimate(value, value - deviation, value + deviation)


def _variance(families: Sequence[Family], errors: list[Floats], slopes: list[Floats]) -> float:
    """That of every family alone, and what errors that two of them share add to it or take from it."""
    found, scale = 0.0, []
    for family, residual, slope in zip(families, errors, slopes, strict=True):
        known = residual[np.isfinite(residual)]
        scale.append(np.sqrt((known**2).sum() / (len(known) - 3 * len(family.minima))))
        found += scale[-1] ** 2 * float(slope @ slope)
    for one, other in combinations(range(len(families)), 2):
        mine, theirs = _shared(families[one], families[other])
        alike = scale[one] * scale[other] * _correlation(errors[one][mine], errors[other][theirs])
        found += 2 * alike * float(slopes[one][mine] @ slopes[other][theirs])
    return max(found, 0.0)


def _slopes(statistic: Statistic, minima: list[Minima], family: Family, place: int) -> Floats:
    """Derivatives with respect to the loss of every run of the family at that place."""

    def at(budget: float, minimum: IsoFlopMinimum) -> float:
        return statistic([*minima[:place], {**minima[place], budget: minimum}, *minima[place + 1 :]])

    slopes = np.zeros(len(family.loss))
    for row, nudged in family.nudged.items():
        budget = float(family.budget[row])
        if nudged.apart:
            slopes[row] = (at(budget, nudged.up) - at(budget, nudged.down)) / nudged.apart
    return slopes


def _residuals(family: Family) -> Floats:
    """Of the runs that a parabola was fitted to; of the others, not a number."""
    found = np.full(len(family.loss), np.nan)
    for budget, minimum in family.minima.items():
        fitted = family.fitted(budget)
        found[fitted] = family.loss[fitted] - minimum(family.N[fitted])
    return found


def _shared(first: Family, second: Family) -> tuple[list[int], list[int]]:
    """Rows of both that stand for the same budget, place among the sizes and seed."""

    def names(family: Family) -> dict[tuple[float, int, int], int]:
        keys = zip(family.budget.tolist(), family.place.tolist(), family.seed.tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    ours, theirs = names(first), names(second)
    both = [key for key in ours if key in theirs]
    return [ours[key] for key in both], [theirs[key] for key in both]


def _correlation(first: Floats, second: Floats) -> float:
    known = np.isfinite(first) & np.isfinite(second)
    size = np.sqrt((first[known] ** 2).sum() * (second[known] ** 2).sum())
    return float((first[known] * second[known]).sum() / size) if size > 0 else 0.0
