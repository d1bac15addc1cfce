"""Intervals of statistics of IsoFLOP minima: the errors of the runs, propagated to first order (the delta method).

A bootstrap needs more runs than a budget has: of five sizes drawn anew many samples have no minimum. Here the scatter of the
runs about the parabolas tells how large errors are at each budget, and how correlated those of two architectures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import stdtrit

from archlab.scaling.fits import IsoFlopMinimum, Resampling
from archlab.scaling.fits.columns import Floats
from archlab.scaling.fits.noise import FLOOR, error_scales, first_scales, outlier_limit
from archlab.scaling.laws import Estimate
from archlab.scaling.study import Minima, RunTable

Statistic = Callable[[list[Minima]], float]
"""A function of the minima of some architectures."""


@dataclass(frozen=True)
class _Errors:
    """The errors of an architecture's runs about its parabolas, a value for each run."""

    scale: Floats
    """Standard deviations; 0 for runs that no parabola was fitted to."""
    standard: Floats
    """Residuals in standard deviations; NaN for outliers and runs that no parabola was fitted to."""
    freedom: float


def estimate(statistic: Statistic, tables: Sequence[RunTable], resampling: Resampling) -> Estimate:
    """Compute a statistic of the minima of some architectures, with an interval if there are runs to judge errors by.

    The size of errors is judged for each budget, with what others tell about its change with FLOPs, and without outliers; the
    correlation between runs of two architectures with equal budget, size index and seed is taken to be the same everywhere.
    The quantile is of Student's distribution, with as many degrees of freedom as the least certain of the architectures has
    runs beyond three for each parabola.
    """
    minima = [table.minima for table in tables]
    value = statistic(minima)
    errors = [found for table in tables if (found := _errors(table)) is not None] if resampling.resamples else []
    if not errors or len(errors) < len(tables):
        return Estimate(value, None, None)
    slopes = [_slopes(statistic, minima, table, index) for index, table in enumerate(tables)]
    freedom = min(one.freedom for one in errors)
    deviation = float(stdtrit(freedom, (1 + resampling.confidence) / 2)) * _variance(tables, errors, slopes) ** 0.5
    return Estimate(value, value - deviation, value + deviation)


def _variance(tables: Sequence[RunTable], errors: list[_Errors], slopes: list[Floats]) -> float:
    """Sum the variances of all tables and the covariances of their pairs."""
    weighted = [slope * one.scale for slope, one in zip(slopes, errors, strict=True)]
    variance = sum(float(one @ one) for one in weighted)
    for one, other in combinations(range(len(tables)), 2):
        rows, other_rows = _paired(tables[one], tables[other])
        pairs = np.stack([errors[one].standard[rows], errors[other].standard[other_rows]])
        ours, theirs = pairs[:, np.isfinite(pairs).all(axis=0)]
        size = np.sqrt((ours**2).sum() * (theirs**2).sum())
        correlation = float((ours * theirs).sum() / size) if size > 0 else 0.0
        variance += 2 * correlation * float(weighted[one][rows] @ weighted[other][other_rows])
    return max(variance, 0.0)


def _errors(table: RunTable) -> _Errors | None:
    """Judge the errors of a table; None without a run to spare."""
    residual, leverage = np.full(len(table.loss), np.nan), np.zeros(len(table.loss))
    for budget, minimum in table.minima.items():
        rows = table.fitted(budget)
        residual[rows] = table.loss[rows] - minimum(table.N[rows])
        orthogonal, _ = np.linalg.qr(np.vander(np.log(table.N[rows] / minimum.size), 3))
        leverage[rows] = np.minimum((orthogonal**2).sum(axis=1), 0.95)
    fitted = np.isfinite(residual)
    freedom = fitted.sum() - 3 * len(table.minima)
    if freedom < 1:
        return None
    away, budgets, floor = residual[fitted] / np.sqrt(1 - leverage[fitted]), table.budget[fitted], FLOOR * table.loss[fitted]
    limit = outlier_limit(freedom)
    first = np.maximum(first_scales(away, budgets, 3 * len(table.minima)), floor)
    kept = np.abs(away) <= limit * first
    freedom -= int((~kept).sum())
    if freedom < 1:
        return None
    scale, standard = np.zeros(len(table.loss)), np.full(len(table.loss), np.nan)
    scale[fitted] = np.maximum(error_scales(away[kept] ** 2, budgets[kept], budgets), floor)
    standard[fitted] = np.where(kept, away, np.nan) / scale[fitted]
    return _Errors(scale, standard, float(freedom))


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


def _paired(first: RunTable, second: RunTable) -> tuple[list[int], list[int]]:
    """Return the rows of both with equal budget, size index and seed."""

    def rows(table: RunTable) -> dict[tuple[float, int, int], int]:
        keys = zip(table.budget.tolist(), table.size_index.tolist(), table.seed.tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    ours, theirs = rows(first), rows(second)
    both = [key for key in ours if key in theirs]
    return [ours[key] for key in both], [theirs[key] for key in both]
