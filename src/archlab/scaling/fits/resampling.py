"""Intervals of whatever a fit gives: by fitting again to resampled runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import Floats, at_least

Statistic = Callable[..., ArrayLike]
"""Takes the columns, gives one number or a vector of them."""


@dataclass(frozen=True)
class Interval:
    """Bounds of each number that a statistic gives."""

    low: Floats
    high: Floats
    confidence: float
    resamples: int
    """Resamples that the fit succeeded on; where it failed on some, the interval is of the others. Of a jackknife, the runs."""


def bootstrap(
    statistic: Statistic,
    *columns: ArrayLike,
    strata: ArrayLike | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic over runs drawn with replacement (the case bootstrap).

    Its distances from the statistic of all runs are widened by ``sqrt(n / (n - 1))``, ``n`` the mean number of runs of a
    stratum: the spread of ``n`` values drawn from ``n`` is that much too small on average.

    Args:
        statistic: of the columns, for example ``lambda N, D, loss: fit_parametric(N, D, loss).alpha``.
        columns: one value a run each.
        strata: labels of runs that are drawn among their own, such as the budget: every resample then has as many
            runs of each budget as the data.
        resamples: how many.
        confidence: share of the resamples within the bounds.
        seed: of the draws.

    Raises:
        ArchlabError: the statistic refuses the runs or more than half of the resamples, every stratum is a single run, or an
            option makes no sense.
    """
    if not 0 < confidence < 1:
        raise ArchlabError(f"confidence={confidence}: must lie between 0 and 1, for example 0.95")
    at_least(resamples, "resamples", 20, "for percentiles")
    arrays = [np.asarray(column) for column in columns]
    labels = np.zeros(len(arrays[0])) if strata is None else np.asarray(strata)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    at_least(len(labels), "runs", len(groups) + 1, "for as many strata, or every resample is the same")
    value = np.asarray(statistic(*arrays), dtype=np.float64)
    rng = np.random.Generator(np.random.PCG64(seed))
    values = []
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        try:
            values.append(np.asarray(statistic(*(array[drawn] for array in arrays)), dtype=np.float64))
        except ArchlabError as error:
            refused = error
    if len(values) < resamples / 2:
        raise ArchlabError(f"{resamples - len(values)} of {resamples} resamples cannot be fitted ({refused}): add runs")
    widening = np.sqrt(len(labels) / (len(labels) - len(groups)))
    low, high = value + widening * (np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0) - value)
    return Interval(low, high, confidence, len(values))


def jackknife(statistic: Statistic, *columns: ArrayLike) -> Floats:
    """Standard error of a statistic from leaving out one run after the other (the delete-one jackknife).

    Raises:
        ArchlabError: fewer than three runs, or the statistic refuses a sample.
    """
    arrays = [np.asarray(column) for column in columns]
    n = len(arrays[0])
    at_least(n, "runs", 3, "to leave one out")
    values = np.array([np.asarray(statistic(*(np.delete(array, i) for array in arrays)), dtype=np.float64) for i in range(n)])
    error: Floats = np.sqrt((n - 1) / n * ((values - values.mean(axis=0)) ** 2).sum(axis=0))
    return error


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    resamples: int = 300
    """Of the bootstrap; 0 for no intervals, by whatever method."""
    confidence: float = 0.95
    seed: int = 0
    method: Literal["bootstrap", "jackknife"] = "bootstrap"
    """Percentiles of :func:`bootstrap`, or the value and its error by :func:`jackknife` times a quantile of Student's
    distribution: as many fits as runs, and each on nearly all of them, so that few runs are enough."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ArchlabError: naming the field, its value and what is allowed.
        """
        if self.resamples and self.resamples < 20:
            raise ArchlabError(f"resamples={self.resamples}: percentiles take at least 20; 0 for no intervals")
        if not 0 < self.confidence < 1:
            raise ArchlabError(f"confidence={self.confidence}: must lie between 0 and 1, for example 0.95")
        if self.method not in ("bootstrap", "jackknife"):
            raise ArchlabError(f"method={self.method!r}: choose bootstrap or jackknife")

    def interval(self, statistic: Statistic, *columns: ArrayLike, strata: ArrayLike | None = None) -> Interval:
        """Of the numbers that a statistic gives of the columns; ``strata`` are those of the bootstrap.

        Raises:
            ArchlabError: no intervals are asked for, or too many samples cannot be fitted.
        """
        if not self.resamples:
            raise ArchlabError("none were asked for")
        if self.method == "bootstrap":
            return bootstrap(
                statistic, *columns, strata=strata, resamples=self.resamples, confidence=self.confidence, seed=self.seed
            )
        error, runs = jackknife(statistic, *columns), len(np.asarray(columns[0]))
        value = np.asarray(statistic(*map(np.asarray, columns)), dtype=np.float64)
        reach = float(t.ppf((1 + self.confidence) / 2, runs - 1)) * error
        return Interval(value - reach, value + reach, self.confidence, runs)
