"""Approach 1: the size of least loss at every compute, from whole training curves (arXiv 2203.15556, 3.1)."""
# ruff: noqa: N803 - the field's symbols

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import Floats, check_enough, is_real, numbered, positive_columns
from archlab.scaling.fits.power_law import Frontier, PowerLaw, fit_power_law

POINTS = 400
"""Amounts of compute, evenly spaced in the logarithm, at which the curves are compared."""


@dataclass(frozen=True)
class EnvelopeFit:
    """The size of least loss at every compute where smaller and larger sizes were trained, and its power laws."""

    flops: tuple[float, ...]
    size: tuple[float, ...]
    """Parameters at the minimum of the parabola in log N through the lowest curve and those of the next sizes."""
    tokens: tuple[float, ...]
    """Tokens that a training run of this size has seen by then."""
    loss: tuple[float, ...]
    size_law: PowerLaw
    """Compute-optimal parameters over FLOPs."""
    tokens_law: PowerLaw
    """Compute-optimal tokens over FLOPs."""

    def frontier(self) -> Frontier:
        """The power laws as a frontier; its loss has no floor, and is that of the curves."""
        return Frontier(self.size_law, self.tokens_law, 0.0, fit_power_law(x=self.flops, y=self.loss))


def fit_envelope(
    *,
    curve: Sequence[object],
    C: ArrayLike,
    N: ArrayLike,
    loss: ArrayLike,
    D: ArrayLike | None = None,
    group: Sequence[object] | None = None,
    since: float = 0.1,
) -> EnvelopeFit:
    """Fit power laws to the lower envelope of training curves; every column has a value for each point of each curve.

    Before the end of a training run its learning rate has not decayed, so its loss is above that of a run which ends
    there. At equal compute the runs of one budget have similar learning rates: make each budget a group.

    The size of the lowest curve changes in steps, and the ends of the range cut the first and the last step, which bends
    the exponent of a line through them. The minimum of a parabola between the sizes has no steps.

    Args:
        curve: label of the training run that a point belongs to.
        C: FLOPs spent up to the point.
        N: parameters, constant along a curve.
        loss: smoothed training loss.
        D: tokens seen up to the point; by default ``C / (6 N)``.
        group: label; a curve is compared with those of its group. By default all are one group.
        since: fraction of its FLOPs from which on a curve counts; before, it warms up.

    Raises:
        ArchlabError: fewer than two sizes are best between smaller and larger ones, the size changes along a curve, the columns
            differ in length, a value is not positive, a label is missing, or ``since`` is out of range.
    """
    if not is_real(since) or not 0 <= since < 1:
        raise ArchlabError(f"since={since!r}: must be at least 0 and below 1, for example 0.1")
    flops, size, observed = positive_columns(C=C, N=N, loss=loss)
    check_enough(len(flops), "points", 1, "to follow a curve")
    _, tokens = positive_columns(C=flops, D=flops / (6 * size) if D is None else D)
    curves = numbered("curve", curve, len(flops))
    groups = numbered("group", np.zeros(len(flops)) if group is None else group, len(flops))
    sizes, ends = np.zeros(curves.max() + 1), np.zeros(curves.max() + 1)
    np.maximum.at(sizes, curves, size)
    np.maximum.at(ends, curves, flops)
    changing = np.flatnonzero(size != sizes[curves])
    if len(changing):
        where = f"N[{changing[0]}]={size[changing[0]]:g}"
        raise ArchlabError(f"{where}: the size of a training run does not change: give each run its own curve")
    counts = flops >= since * ends[curves]
    kept = [np.flatnonzero(counts & (groups == one)) for one in range(groups.max() + 1)]
    minima = [_minima(curves[rows], flops[rows], size[rows], tokens[rows], observed[rows]) for rows in kept]
    compute, best, optimum, seen, least = np.concatenate(minima, axis=1)
    what = "sizes that are best at some compute, between smaller and larger ones"
    check_enough(len(np.unique(best)), what, 2, "to draw a line: add sizes or budgets")
    return EnvelopeFit(
        flops=tuple(compute.tolist()),
        size=tuple(optimum.tolist()),
        tokens=tuple(seen.tolist()),
        loss=tuple(least.tolist()),
        size_law=fit_power_law(x=compute, y=optimum),
        tokens_law=fit_power_law(x=compute, y=seen),
    )


def _minima(curves: NDArray[np.intp], flops: Floats, size: Floats, tokens: Floats, loss: Floats) -> Floats:
    """Minima of a group of curves, wherever the best size lies between two others: ``(5, points)``.

    The rows are FLOPs, best size trained, and parameters, tokens and loss at the minimum of the parabola.
    """
    at, sizes = np.geomspace(flops.min(), flops.max(), POINTS), np.unique(size)
    # infinite where no curve of the size reaches
    losses, per_flop = np.full((len(sizes), POINTS), np.inf), np.zeros((len(sizes), POINTS))
    for curve in np.unique(curves):
        points = np.flatnonzero(curves == curve)
        points = points[np.argsort(flops[points], kind="stable")]
        row, x = np.searchsorted(sizes, size[points[0]]), np.log(flops[points])
        losses[row] = np.minimum(losses[row], np.interp(np.log(at), x, loss[points], left=np.inf, right=np.inf))
        per_flop[row] = np.interp(np.log(at), x, np.log(tokens[points]) - x)
    indices, best = np.arange(len(sizes))[:, None], losses.argmin(axis=0)
    below = np.where(np.isfinite(losses) & (indices < best), indices, -1).max(axis=0)
    above = np.where(np.isfinite(losses) & (indices > best), indices, len(sizes)).min(axis=0)
    between = np.flatnonzero((below >= 0) & (above < len(sizes)))
    at, best, below, above = at[between], best[between], below[between], above[between]
    low, high = (np.log(sizes[neighbour] / sizes[best]) for neighbour in (below, above))
    rise_low, rise_high = ((losses[neighbour, between] - losses[best, between]) for neighbour in (below, above))
    curvature = (rise_high / high - rise_low / low) / (high - low)
    slope = rise_low / low - curvature * low
    step = np.divide(-slope, 2 * curvature, out=np.zeros_like(slope), where=curvature > 0)  # three equal losses have no minimum
    fraction = (step - low) / (high - low)
    seen = at * np.exp((1 - fraction) * per_flop[below, between] + fraction * per_flop[above, between])
    return np.stack([at, sizes[best], sizes[best] * np.exp(step), seen, losses[best, between] + slope * step / 2])
