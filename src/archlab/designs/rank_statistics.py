"""Statistics of ranks over few architectures: tau-b with intervals that hold, partial tau, power.

Agreement is positive where the better value of one column goes with the better value of the other.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
_SAMPLES = 4000
"""Samples of tau at each true tau, from which the interval of few architectures and the power are read."""
_TRUE_TAUS = np.linspace(-0.99, 0.99, 67)


class Interval(NamedTuple):
    """An interval of 95 %."""

    low: float
    high: float


class Pairs(NamedTuple):
    """Pairs of architectures by whether the one column puts them into the order of the other."""

    right: int
    wrong: int
    tied: int
    """Equal, or no further apart than their noise, in one of the columns."""

    @property
    def total(self) -> int:
        """All pairs."""
        return sum(self)


def tau_b(x: Floats, y: Floats) -> Floats:
    """Kendall's tau-b along the last axis: of ``(..., n)`` and ``(..., n)``, ``(...)``; NaN where a column has one value only."""
    first, second = np.triu_indices(x.shape[-1], 1)
    of_x, of_y = (np.sign(values[..., first] - values[..., second]) for values in (x, y))
    untied = np.sqrt((of_x**2).sum(-1) * (of_y**2).sum(-1))
    concordant = (of_x * of_y).sum(-1)
    found: Floats = np.where(untied > 0, concordant / np.where(untied > 0, untied, 1.0), np.nan)
    return found


def ordered_pairs(x: Floats, y: Floats, x_draws: Floats | None = None, y_draws: Floats | None = None) -> Pairs:
    """Count the pairs that ``x`` orders as ``y`` does. With draws of their noise, ``(draws, n)``, a pair whose difference has an
    interval that holds zero is tied."""
    first, second = np.triu_indices(x.size, 1)
    signs = np.ones(first.size)
    for values, draws in ((x, x_draws), (y, y_draws)):
        signs = signs * np.sign(values[first] - values[second])
        if draws is not None:
            tail = (1 - CONFIDENCE) / 2
            low, high = np.quantile(draws[:, first] - draws[:, second], [tail, 1 - tail], axis=0)
            signs = np.where((low <= 0) & (high >= 0), 0, signs)
    return Pairs(int((signs > 0).sum()), int((signs < 0).sum()), int((signs == 0).sum()))


def tau_interval(x: Floats, y: Floats, x_draws: Floats | None = None, y_draws: Floats | None = None) -> Interval | None:
    """The interval of tau-b over architectures and over the noise of both columns; None with fewer than four architectures.

    A percentile bootstrap over architectures, in which every drawn architecture takes one draw of its noise. The noise is in
    the columns already, so drawing it a second time lowers tau, and the mean loss is added back. A bootstrap of few
    architectures that agree almost wholly is too narrow: the interval reaches at least as far as the true values, under a normal
    copula, of which the tau that was found is not in the outer 5 %.
    """
    n = x.size
    if n < 4:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, n, size=(RESAMPLES, n))
    taus = tau_b(x[drawn], y[drawn])
    if x_draws is not None or y_draws is not None:
        noisy = [
            values[drawn] if draws is None else draws[rng.integers(0, len(draws), size=(RESAMPLES, 1)), drawn]
            for values, draws in ((x, x_draws), (y, y_draws))
        ]
        with_noise = tau_b(noisy[0], noisy[1])
        taus = np.clip(with_noise + np.nanmean(taus) - np.nanmean(with_noise), -1, 1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(taus, [tail, 1 - tail])
    least, most = _true_taus(n, float(tau_b(x, y)))
    return Interval(float(min(low, least)), float(max(high, most)))


def power(n: int, tau: float = 0.6) -> float:
    """Probability that ``n`` architectures with this true tau show that it is not zero, at the level of 5 %."""
    independent, samples = _sampled_taus(n, 0.0), _sampled_taus(n, tau)
    threshold = np.quantile(np.abs(independent), 1 - SIGNIFICANCE, method="higher")
    least = np.abs(independent).max()
    beyond = np.abs(samples) > threshold if (np.abs(independent) > threshold).any() else np.abs(samples) >= least
    return float(beyond.mean())


def partial_tau(x: Floats, y: Floats, others: Sequence[Floats]) -> float | None:
    """Tau-b of two columns given others, from the inverse of their matrix of taus (Kendall, Rank Correlation Methods, ch. 8)."""
    columns = [x, y, *others]
    matrix = np.array([[float(tau_b(one, two)) for two in columns] for one in columns])
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix, tol=1e-6) < len(columns):
        return None
    inverse = np.linalg.inv(matrix)
    return float(np.clip(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]), -1, 1))


def reliability(values: Floats, draws: Floats | None) -> float | None:
    """The fraction of the variance between architectures that is not noise; None where the noise is not known."""
    total = float(np.var(values, ddof=1))
    if draws is None or total == 0:
        return None
    return float(np.clip(1 - draws.var(axis=0, ddof=1).mean() / total, 0, 1))


def _true_taus(n: int, found: float) -> Interval:
    """The least and the largest true tau in whose distribution the one that was found is not in the outer 5 %."""
    tail = (1 - CONFIDENCE) / 2
    at_least = np.array([(_sampled_taus(n, tau) >= found - 1e-9).mean() for tau in _TRUE_TAUS])
    at_most = np.array([(_sampled_taus(n, tau) <= found + 1e-9).mean() for tau in _TRUE_TAUS])
    possible = _TRUE_TAUS[(at_least > tail) & (at_most > tail)]
    low = -1.0 if at_least[0] > tail else float(possible.min(initial=found))
    high = 1.0 if at_most[-1] > tail else float(possible.max(initial=found))
    return Interval(low, high)


@cache
def _sampled_taus(n: int, tau: float) -> Floats:
    """Values of tau over ``n`` architectures where the true tau is this, under a normal copula: ``(samples,)``."""
    x, noise = np.random.default_rng(n).standard_normal((2, _SAMPLES, n))
    correlation = np.sin(np.pi * tau / 2)
    return tau_b(x, correlation * x + np.sqrt(1 - correlation**2) * noise)
