"""Intervals of any number that a fit gives, by fitting again to resampled runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from archlab.errors import ArchlabError
from archlab.fields import Natural, above, at_least, below, check_fields, check_value
from archlab.machine import one_blas_thread
from archlab.scaling.fits.columns import Floats, array, check_enough, numbered, whole_columns

Confidence = Annotated[float, above(0), below(1)]
"""Fraction of the resamples within an interval."""

IntervalMethod = Literal["bootstrap", "jackknife"]
Statistic = Callable[..., ArrayLike]
"""A function of the columns that returns one number or a vector of numbers."""


@dataclass(frozen=True)
class Interval:
    """Bounds of each number of a statistic."""

    low: Floats
    high: Floats
    confidence: float
    resamples: int
    """Resamples that the fit succeeded on; the others are left out. For a jackknife, the number of runs."""


@one_blas_thread()
def bootstrap(
    statistic: Statistic,
    *columns: ArrayLike,
    strata: ArrayLike | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    vectorized: bool = False,
) -> Interval:
    """Percentile interval of a statistic over runs drawn with replacement (the case bootstrap).

    Distances from the statistic of all runs are widened by ``sqrt(n / (n - 1))``, ``n`` the mean number of runs of a
    stratum: the spread of ``n`` values drawn from ``n`` is that much too small on average.

    Args:
        statistic: function of the columns, such as ``lambda N, D, loss: fit_parametric(N=N, D=D, loss=loss).alpha``.
        columns: one value a run, of any type.
        strata: labels of runs that are drawn among their own, such as the budget: every resample then has as many
            runs of each budget as the data.
        resamples: number of resamples, at least 20.
        confidence: fraction of the resamples within the bounds, between 0 and 1.
        seed: seed of the draws, a whole number from 0 on.
        vectorized: the statistic takes all resamples at once, columns of shape ``(samples, runs)``, and returns a row of numbers
            for each; NaN for those that it refuses.

    Raises:
        ArchlabError: the statistic refuses the runs or more than half of the resamples, or returns no finite number; the columns
            or strata differ in length or lack a value; every stratum is a single run; an option is out of range.
    """
    resamples = check_value("resamples", resamples, Annotated[int, at_least(20)])
    confidence = check_value("confidence", confidence, Confidence)
    seed = check_value("seed", seed, Natural)
    arrays = whole_columns(*columns)
    runs = len(arrays[0])
    labels = np.zeros(runs) if strata is None else numbered("strata", strata, runs, "columns[0]")
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    check_enough(runs, "runs", len(groups) + 1, "for as many strata, or every resample is the same")
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = np.stack([np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(resamples)])
    value, values = _value(statistic, arrays, vectorized), []
    refused: ArchlabError | str = "no fit to them is a law"
    if vectorized:
        found = np.asarray(statistic(*(column[draws] for column in arrays)), np.float64)
        values = [one for one in found if np.isfinite(one).all()]
    else:
        for drawn in draws:
            try:
                values.append(_numbers(statistic, [column[drawn] for column in arrays], value.shape))
            except ArchlabError as error:
                refused = error
    if len(values) < resamples / 2:
        raise ArchlabError(f"{resamples - len(values)} of {resamples} resamples cannot be fitted ({refused}): add runs")
    widening = np.sqrt(runs / (runs - len(groups)))
    low, high = value + widening * (np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0) - value)
    low = np.where(np.min(values, axis=0) >= 0, np.maximum(low, 0), low)  # what no resample has below zero is not negative
    return Interval(low, high, confidence, len(values))


@one_blas_thread()
def jackknife(statistic: Statistic, *columns: ArrayLike, vectorized: bool = False) -> Floats:
    """Standard error of a statistic from leaving out one run after the other (the delete-one jackknife).

    A ``vectorized`` statistic is that of :func:`bootstrap`.

    Raises:
        ArchlabError: fewer than three runs, columns that differ in length or lack a value, or the statistic refuses a sample
            or returns no finite number.
    """
    arrays = whole_columns(*columns)
    n = len(arrays[0])
    check_enough(n, "runs", 3, "to leave one out")
    if vectorized:
        rows = np.stack([np.delete(np.arange(n), i) for i in range(n)])
        values = _numbers(statistic, [column[rows] for column in arrays])
        return _spread(values)
    first = _numbers(statistic, [column[1:] for column in arrays])
    others = [_numbers(statistic, [np.delete(column, i, axis=0) for column in arrays], first.shape) for i in range(1, n)]
    return _spread(np.array([first, *others]))


def _spread(values: Floats) -> Floats:
    n = len(values)
    error: Floats = np.sqrt((n - 1) / n * ((values - values.mean(axis=0)) ** 2).sum(axis=0))
    return error


def _value(statistic: Statistic, columns: list[NDArray[Any]], vectorized: bool) -> Floats:
    """Compute the statistic of all runs."""
    if not vectorized:
        return _numbers(statistic, columns)
    return np.asarray(_numbers(statistic, [column[None] for column in columns])[0])


def _numbers(statistic: Statistic, columns: list[NDArray[Any]], shape: tuple[int, ...] | None = None) -> Floats:
    """Compute the statistic; refuses anything but finite numbers of the shape, if one is given."""
    numbers: Floats = array("statistic", statistic(*columns), np.float64)
    if shape is not None and numbers.shape != shape:
        raise ArchlabError(f"the statistic gives numbers of shape {numbers.shape} and {shape}: always give as many")
    bad = numbers[~np.isfinite(numbers)]
    if bad.size:
        raise ArchlabError(f"the statistic gives {bad[0]}: it must give finite numbers, or raise an ArchlabError")
    return numbers


@dataclass(frozen=True)
class Resampling:
    """Method and options of intervals; an ArchlabError names the field that is not allowed, its value and what is."""

    resamples: Annotated[int, at_least(20)] | Literal[0] = 300
    """Resamples of the bootstrap; 0 for no intervals, by either method."""
    confidence: Confidence = 0.95
    seed: Natural = 0
    method: IntervalMethod = "bootstrap"
    """Percentiles of :func:`bootstrap`, or the value and its error by :func:`jackknife` times a quantile of Student's
    distribution: as many fits as runs, and each on nearly all of them, so that few runs are enough."""

    def __post_init__(self) -> None:
        check_fields(self)

    def interval(
        self, statistic: Statistic, *columns: ArrayLike, strata: ArrayLike | None = None, vectorized: bool = False
    ) -> Interval:
        """Return the interval of a statistic of the columns; ``strata`` are for the bootstrap, whose ``vectorized`` this has.

        Raises:
            ArchlabError: no intervals are asked for, or too many samples cannot be fitted.
        """
        if not self.resamples:
            raise ArchlabError("none were asked for")
        if self.method == "bootstrap":
            options: Any = {"resamples": self.resamples, "confidence": self.confidence, "seed": self.seed}
            return bootstrap(statistic, *columns, strata=strata, vectorized=vectorized, **options)
        error, arrays = jackknife(statistic, *columns, vectorized=vectorized), whole_columns(*columns)
        value, runs = _value(statistic, arrays, vectorized), len(arrays[0])
        reach = float(stdtrit(runs - 1, (1 + self.confidence) / 2)) * error
        return Interval(value - reach, value + reach, self.confidence, runs)
