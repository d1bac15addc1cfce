"""Approach 2: the size of least loss at every budget, from a parabola in the logarithm of the size (arXiv 2203.15556, 3.2)."""
# ruff: noqa: N803 - the field's symbols

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import Floats, check_enough, is_real, positive_columns
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
    wide: float | None = None
    """How far the sizes reach from the minimum, as a factor, if so far that a parabola is biased."""
    short: Literal["", "below", "above"] = ""
    """The side of the minimum on which the sizes reach less than half as far as on the other."""

    def __call__(self, N: ArrayLike) -> Floats:
        """Return the parabola at ``N`` parameters."""
        return np.asarray(self.loss + self.curvature * np.log(np.asarray(N, float) / self.size) ** 2)


@dataclass(frozen=True)
class NoMinimum:
    """The reason why a budget has no minimum."""

    cause: str
    add: tuple[float, float] | None
    """Parameters of the sizes to add, from half or twice those of the last one outwards; None where any would do."""

    def __str__(self) -> str:
        if self.add is None:
            return self.cause
        low, high = sorted(self.add)
        return f"{self.cause}; add sizes from {low:.3g} to {high:.3g} parameters"


@dataclass(frozen=True)
class IsoFlopFit:
    """The minima of the budgets, and the power laws through them."""

    minima: tuple[IsoFlopMinimum, ...]
    refused: dict[float, NoMinimum]
    """By budget without a minimum."""
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
    refused: dict[float, NoMinimum] = {}
    order = np.argsort(compute, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(np.log(compute[order])) > np.log(SAME_BUDGET)) + 1):
        flops = float(np.median(compute[group]))
        found = find_minimum(flops, size[group], tokens[group], observed[group], window)
        if isinstance(found, NoMinimum):
            refused[flops] = found
        else:
            minima.append(found)
    if len(minima) < 2:
        causes = Counter(reason.cause for reason in refused.values())
        reasons = "; ".join(f"{cause} (in {number})" for cause, number in causes.items()) or "all runs are of one budget"
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
    found = find_minimum(float(budget[0]), size, tokens, observed, window)
    if isinstance(found, NoMinimum):
        raise ArchlabError(f"budget {budget[0]:.3g}: {found}")
    return found


def check_window(window: float) -> None:
    """Refuse a window that is no factor above 1."""
    if not is_real(window) or not window > 1:
        raise ArchlabError(f"window={window!r}: give a factor above 1, or inf for all sizes")


def find_minimum(flops: float, size: Floats, tokens: Floats, loss: Floats, window: float) -> IsoFlopMinimum | NoMinimum:
    """Find the minimum of one group of runs, or say why there is none; the columns are taken to be right."""
    if len(np.unique(size)) < 3:
        return NoMinimum("fewer than 3 sizes; a parabola takes at least 3, better 5", None)
    if np.ptp(loss) <= 1e-12 * loss.max():
        return NoMinimum("all losses are equal: nothing to fit", None)
    equally = np.sort(size[loss == loss.min()])
    best = equally[len(equally) // 2]
    for end, word, factor in ((float(size.min()), "smallest", 1 / 4), (float(size.max()), "largest", 4.0)):
        if best == end:
            return NoMinimum(f"the {word} size is the best: not bracketed", (end * factor**0.5, end * factor))
    distance = np.abs(np.log(size / best))
    near = distance <= np.log(window) * (1 + 1e-9)
    if len(np.unique(size[near])) < 3:
        near = np.isin(size, sorted(np.unique(size), key=lambda one: abs(np.log(one / best)))[:3])
    x, y = np.log(size[near] / best), loss[near]
    curve = _robust_parabola(x, y)
    at = -curve[1] / (2 * curve[0]) if curve[0] > 0 else np.inf
    if not x.min() < at < x.max():
        end, factor = (float(size[near].max()), 4.0) if at > 0 else (float(size[near].min()), 1 / 4)
        return NoMinimum("the parabola has no minimum between the sizes: not bracketed", (end * factor**0.5, end * factor))
    log_tokens = np.log(tokens[near])
    seen = np.polyval(np.polyfit(x, log_tokens, min(2, len(np.unique(x)) - 2)), at)
    below, above = at - float(x.min()), float(x.max()) - at
    least, most = sorted((below, above))
    return IsoFlopMinimum(
        flops=flops,
        size=float(best * np.exp(at)),
        tokens=float(np.exp(np.clip(seen, log_tokens.min(), log_tokens.max()))),
        loss=float(np.polyval(curve, at)),
        curvature=float(curve[0]),
        runs=len(x),
        smallest=float(size[near].min()),
        largest=float(size[near].max()),
        wide=float(np.exp(most)) if most > np.log(WIDE) else None,
        short="" if most <= 2 * least else "below" if below <= above else "above",
    )


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
