"""Approach 2: the size of least loss at every budget, from a parabola in the logarithm of the size (arXiv 2203.15556, 3.2)."""
# ruff: noqa: N803 - the field's symbols

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import Floats, check_differ, check_enough, is_real, positive_columns
from archlab.scaling.fits.power_law import Frontier, PowerLaw, fit_power_law

SAME_BUDGET = 1.05
"""Runs whose FLOPs lie within this factor of the next smaller ones belong to one budget."""
WINDOW = 6.0
"""Sizes within this factor of the best one determine a parabola, by default."""
OUTLIER = 10.0
"""Robust standard deviations beyond which a run weighs less; what a parabola misses of a wide grid reaches eight."""
WIDE = 8.0
"""Runs further than this factor from the minimum bend the parabola: the loss is not symmetric in log size."""


@dataclass(frozen=True)
class IsoFlopMinimum:
    """The minimum of the loss at one budget."""

    flops: float
    """The budget: median over its runs."""
    size: float
    """Parameters at the minimum."""
    tokens: float
    loss: float
    curvature: float
    """The parabola is ``loss + curvature * log(N / size) ** 2``."""
    runs: int
    """Runs that the parabola was fitted to."""
    smallest: float
    """Size of the smallest of them."""
    largest: float
    warnings: tuple[str, ...] = ()

    def __call__(self, N: ArrayLike) -> Floats:
        """Return the parabola at ``N`` parameters."""
        return np.asarray(self.loss + self.curvature * np.log(np.asarray(N, float) / self.size) ** 2)


@dataclass(frozen=True)
class IsoFlopFit:
    """The minima of the budgets, and the power laws through them."""

    minima: tuple[IsoFlopMinimum, ...]
    refused: dict[float, str]
    """Reason by budget without a minimum, with the sizes to add."""
    size_law: PowerLaw
    """Compute-optimal parameters over FLOPs."""
    tokens_law: PowerLaw
    """Compute-optimal tokens over FLOPs."""

    def frontier(self) -> Frontier:
        """The power laws as a frontier; its loss has no floor, which the minima of a few budgets do not determine."""
        loss = fit_power_law(x=[m.flops for m in self.minima], y=[m.loss for m in self.minima])
        return Frontier(self.size_law, self.tokens_law, 0.0, loss)


def fit_isoflop(*, C: ArrayLike, N: ArrayLike, loss: ArrayLike, D: ArrayLike | None = None, window: float = WINDOW) -> IsoFlopFit:
    """Fit parabolas to groups of runs of equal compute, and power laws to their minima.

    Args:
        C: training FLOPs of each run; runs of nearly the same are a group.
        N: parameters of each run.
        loss: final loss of each run.
        D: tokens of each run; by default ``C / (6 N)``.
        window: the parabola is fitted to the sizes within this factor of the best one, where the loss is about
            symmetric in log size; ``inf`` for all.

    Raises:
        ArchlabError: fewer than two budgets have a minimum between their sizes, the columns differ in length, a value is not
            positive, or the window is no factor above 1.
    """
    compute, size, observed = positive_columns(C=C, N=N, loss=loss)
    check_enough(len(compute), "runs", 1, "to find a minimum")
    _, tokens = positive_columns(C=compute, D=compute / (6 * size) if D is None else D)
    check_window(window)
    minima: list[IsoFlopMinimum] = []
    refused: dict[float, str] = {}
    order = np.argsort(compute, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(np.log(compute[order])) > np.log(SAME_BUDGET)) + 1):
        flops = float(np.median(compute[group]))
        try:
            minima.append(_minimum(flops, size[group], tokens[group], observed[group], window))
        except ArchlabError as error:
            refused[flops] = str(error)
    if len(minima) < 2:
        reasons = "; ".join(refused.values()) or "all runs are of one budget"
        raise ArchlabError(f"{len(minima)} of {len(minima) + len(refused)} budgets have a minimum, two are needed: {reasons}")
    budgets = [m.flops for m in minima]
    return IsoFlopFit(
        minima=tuple(minima),
        refused=refused,
        size_law=fit_power_law(x=budgets, y=[m.size for m in minima]),
        tokens_law=fit_power_law(x=budgets, y=[m.tokens for m in minima]),
    )


def isoflop_minimum(*, flops: float, N: ArrayLike, D: ArrayLike, loss: ArrayLike, window: float = WINDOW) -> IsoFlopMinimum:
    """Find the minimum of one group of runs.

    Args:
        flops: training FLOPs of the group.
        N: parameters of each run.
        D: tokens of each run.
        loss: final loss of each run.
        window: the same as for :func:`fit_isoflop`.

    Raises:
        ArchlabError: there are fewer than three sizes, or the minimum is not between them: naming the budget, and the
            sizes to add; the columns differ in length, a value is not positive, or the window is no factor above 1.
    """
    (budget,) = positive_columns(flops=[flops])
    check_window(window)
    size, tokens, observed = positive_columns(N=N, D=D, loss=loss)
    return _minimum(float(budget[0]), size, tokens, observed, window)


def check_window(window: float) -> None:
    """Refuse a window that is no factor above 1."""
    if not is_real(window) or not window > 1:
        raise ArchlabError(f"window={window!r}: give a factor above 1, or inf for all sizes")


def _minimum(flops: float, size: Floats, tokens: Floats, loss: Floats, window: float) -> IsoFlopMinimum:
    where = f"budget {flops:.3g}"
    if len(np.unique(size)) < 3:
        raise ArchlabError(f"{where}: sizes: {len(np.unique(size))}; a parabola takes at least 3, better 5")
    check_differ(loss, where)
    best = size[loss.argmin()]
    for end, word, factor in ((size.min(), "smallest", 1 / 4), (size.max(), "largest", 4.0)):
        if best == end:
            raise ArchlabError(f"{where}: the {word} size, {end:.3g}, is the best: not bracketed; {_add(end, factor)}")
    distance = np.abs(np.log(size / best))
    near = distance <= np.log(window) * (1 + 1e-9)
    if len(np.unique(size[near])) < 3:
        near = np.isin(size, sorted(np.unique(size), key=lambda one: abs(np.log(one / best)))[:3])
    x, y = np.log(size[near] / best), loss[near]
    curve = _robust_parabola(x, y)
    at = -curve[1] / (2 * curve[0]) if curve[0] > 0 else np.inf
    if not x.min() < at < x.max():
        factor = 4.0 if at > 0 else 1 / 4
        raise ArchlabError(f"{where}: the parabola has no minimum between the sizes: not bracketed; {_add(best, factor)}")
    log_tokens = np.polyfit(x, np.log(tokens[near]), min(2, len(x) - 2))
    return IsoFlopMinimum(
        flops=flops,
        size=float(best * np.exp(at)),
        tokens=float(np.exp(np.polyval(log_tokens, at))),
        loss=float(np.polyval(curve, at)),
        curvature=float(curve[0]),
        runs=len(x),
        smallest=float(size[near].min()),
        largest=float(size[near].max()),
        warnings=_warnings(where, x - at),
    )


def _add(size: float, factor: float) -> str:
    low, high = sorted((size * factor**0.5, size * factor))
    return f"add sizes from {low:.3g} to {high:.3g} parameters"


def _robust_parabola(x: Floats, y: Floats) -> Floats:
    """Least squares in which outliers weigh less (Huber), judged by the residuals of a fit to absolute errors."""
    powers = np.vander(x, 3)

    def fitted(weights: Floats) -> Floats:
        curve: Floats = np.linalg.lstsq(powers * weights[:, None], y * weights, rcond=None)[0].astype(np.float64)
        return curve

    absolute, residual = np.ones_like(x), np.full_like(x, np.inf)
    for _ in range(50 if len(x) > 4 else 1):
        before, residual = residual, np.abs(y - powers @ fitted(absolute))
        if np.abs(residual - before).max() <= 1e-6 * residual.max():
            break
        absolute = 1 / np.sqrt(np.maximum(residual, 1e-9 * np.abs(y).max()))
    if len(x) <= 4 or residual.max() <= 1e-9 * np.abs(y).max():  # three sizes, drawn again and again, are met exactly
        return fitted(np.ones_like(x))
    limit = OUTLIER * 1.4826 * np.median(residual[residual > residual.max() * 1e-6])
    return fitted(np.sqrt(limit / np.maximum(residual, limit)))


def _warnings(where: str, offset: Floats) -> tuple[str, ...]:
    """Reasons why the minimum may be biased; ``offset`` is log size relative to it."""
    below, above = -float(offset.min()), float(offset.max())
    least, most = sorted((below, above))
    warnings = []
    if most > np.log(WIDE):
        warnings.append(f"{where}: sizes reach {np.exp(most):.3g} times from the minimum: a parabola is biased there")
    if most > 2 * least:
        short = "below" if below <= above else "above"
        warnings.append(f"{where}: the sizes {short} the minimum reach less than half as far as the others: add some")
    return tuple(warnings)
