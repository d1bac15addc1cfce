"""Intervals of statistics of IsoFLOP minima: the errors of the runs, propagated to first order (the delta method).

A bootstrap needs more runs than a budget has: of five sizes drawn anew many samples have no minimum. Here the scatter of the
runs about the parabolas of all budgets tells how large errors are, and how correlated those of two architectures.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import t

from archlab.scaling.fits import IsoFlopMinimum, Resampling
from archlab.scaling.fits.columns import Floats
from archlab.scaling.laws import Estimate
from archlab.scaling.study import Minima, RunTable

Statistic = Callable[[list[Minima]], float]
"""A function of the minima of some architectures."""


def estimate(statistic: Statistic, tables: Sequence[RunTable], resampling: Resampling) -> Estimate:
    """Compute a statistic of the minima of some architectures, with an interval if there are runs to judge errors by.

    Errors are taken to have the same size at every budget of an architecture, and the same correlation between runs of two
    architectures with equal budget, size index and seed. The quantile is of Student's distribution, with as many degrees of
    freedom as the least certain of the architectures has runs beyond three for each parabola.
    """
    minima = [table.minima for table in tables]
    value = statistic(minima)
    errors = [_residuals(table) for table in tables]
    freedom = min(np.isfinite(some).sum() - 3 * len(table.minima) for some, table in zip(errors, tables, strict=True))
    if freedom < 1 or not resampling.resamples:
        return Estimate(value, None, None)
    slopes = [_slopes(statistic, minima, table, index) for index, table in enumerate(tables)]
    deviation = float(t.ppf((1 + resampling.confidence) / 2, freedom)) * _variance(tables, errors, slopes) ** 0.5
    return Estimate(value, value - deviation, value + deviation)


def _variance(tables: Sequence[RunTable], errors: list[Floats], slopes: list[Floats]) -> float:
    """Sum the variances of all tables and the covariances of their pairs."""
    variance, scale = 0.0, []
    for table, residual, slope in zip(tables, errors, slopes, strict=True):
        known = residual[np.isfinite(residual)]
        scale.append(np.sqrt((known**2).sum() / (len(known) - 3 * len(table.minima))))
        variance += scale[-1] ** 2 * float(slope @ slope)
    for one, other in combinations(range(len(tables)), 2):
        rows, other_rows = _paired(tables[one], tables[other])
        pairs = np.stack([errors[one][rows], errors[other][other_rows]])
        ours, theirs = pairs[:, np.isfinite(pairs).all(axis=0)]
        size = np.sqrt((ours**2).sum() * (theirs**2).sum())
        covariance = scale[one] * scale[other] * (float((ours * theirs).sum() / size) if size > 0 else 0.0)
        variance += 2 * covariance * float(slopes[one][rows] @ slopes[other][other_rows])
    return max(variance, 0.0)


def _slopes(statistic: Statistic, minima: list[Minima], table: RunTable, index: int) -> Floats:
    """Return the derivatives with respect to the loss of every run of the table with that index."""

    def at(budget: float, minimum: IsoFlopMinimum) -> float:
        return statistic([*minima[:index], {**minima[index], budget: minimum}, *minima[index + 1 :]])

    slopes = np.zeros(len(table.loss))
    for row, (step, lower, higher) in table.finite_differences.items():
        budget = float(table.budget[row])
        if step:
            slopes[row] = (at(budget, higher) - at(budget, lower)) / step
    return slopes


def _residuals(table: RunTable) -> Floats:
    """Return the residuals of the runs that a parabola was fitted to; NaN for the others."""
    residuals = np.full(len(table.loss), np.nan)
    for budget, minimum in table.minima.items():
        fitted = table.fitted(budget)
        residuals[fitted] = table.loss[fitted] - minimum(table.N[fitted])
    return residuals


def _paired(first: RunTable, second: RunTable) -> tuple[list[int], list[int]]:
    """Return the rows of both with equal budget, size index and seed."""

    def rows(table: RunTable) -> dict[tuple[float, int, int], int]:
        keys = zip(table.budget.tolist(), table.size_index.tolist(), table.seed.tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    ours, theirs = rows(first), rows(second)
    both = [key for key in ours if key in theirs]
    return [ours[key] for key in both], [theirs[key] for key in both]
