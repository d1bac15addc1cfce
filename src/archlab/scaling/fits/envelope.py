"""Approach 1: the size of least loss at every compute, from whole training curves (arXiv 2203.15556, 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import Floats, at_least, positive_columns
from archlab.scaling.fits.frontier import Frontier
from archlab.scaling.fits.power_law import PowerLaw, fit_power_law

POINTS = 400
"""Amounts of compute, evenly spaced in the logarithm, at which the curves are compared."""


@dataclass(frozen=True)
class EnvelopeFit:
    """Which curve is lowest at every compute where sizes on both sides of it were trained, and the power laws of it."""

    flops: tuple[float, ...]
    size: tuple[float, ...]
    """Parameters of the lowest curve."""
    tokens: tuple[float, ...]
    """That it has seen by then."""
    loss: tuple[float, ...]
    size_law: PowerLaw
    """Compute-optimal parameters over FLOPs."""
    tokens_law: PowerLaw
    """Compute-optimal tokens over FLOPs."""

    def frontier(self) -> Frontier:
        """The power laws as a frontier; its loss has no floor, and is that of the curves."""
        return Frontier(self.size_law, self.tokens_law, 0.0, fit_power_law(self.flops, self.loss))


def fit_envelope(
    curve: Sequence[object],
    C: ArrayLike,  # noqa: N803 - the field's symbols
    N: ArrayLike,  # noqa: N803
    loss: ArrayLike,
    *,
    D: ArrayLike | None = None,  # noqa: N803
    since: float = 0.1,
) -> EnvelopeFit:
    """Fit power laws to the lower envelope of training curves; every column has a value for each point of each curve.

    Before the end of a training its learning rate has not decayed, so its loss is above that of a training which ends
    there: the envelope follows trainings near their end where there are some. Where none ends, it compares unfinished ones.

    Args:
        curve: the training that a point belongs to: a label.
        C: FLOPs spent until there.
        N: parameters, the same all along a curve.
        loss: smoothed training loss.
        D: tokens seen until there; by default ``C / (6 N)``.
        since: share of its FLOPs from which on a curve counts; before, it warms up.

    Raises:
        ArchlabError: fewer than three sizes are best between smaller and larger ones, the size changes along a curve, or a
            value is not positive.
    """
    if not 0 <= since < 1:
        raise ArchlabError(f"since={since}: must be at least 0 and below 1, for example 0.1")
    flops, size, observed = positive_columns(C=C, N=N, loss=loss)
    at_least(len(flops), "points", 1, "to follow a curve")
    _, tokens = positive_columns(C=flops, D=flops / (6 * size) if D is None else D)
    if len(curve) != len(flops):
        raise ArchlabError(f"curve has {len(curve)} labels, C has {len(flops)} values: give one of each a point")
    # the dictionary tells labels apart that NumPy would turn into equal text
    places = {label: place for place, label in enumerate(dict.fromkeys(curve))}
    of = np.array([places[label] for label in curve])
    sizes, ends = np.zeros(len(places)), np.zeros(len(places))
    np.maximum.at(sizes, of, size)
    np.maximum.at(ends, of, flops)
    changing = np.flatnonzero(size != sizes[of])
    if len(changing):
        raise ArchlabError(f"N[{changing[0]}]={size[changing[0]]:g}: the size of a training does not change: give it its curve")
    counts = flops >= since * ends[of]
    at = np.geomspace(flops[counts].min(), ends.max(), POINTS)
    losses, seen = np.full((len(places), POINTS), np.inf), np.ones((len(places), POINTS))
    for place in range(len(places)):
        mine = np.flatnonzero(counts & (of == place))
        mine = mine[np.argsort(flops[mine], kind="stable")]
        x = np.log(flops[mine])
        losses[place] = np.interp(np.log(at), x, observed[mine], left=np.inf, right=np.inf)
        seen[place] = np.exp(np.interp(np.log(at), x, np.log(tokens[mine])))
    return _fit(at, sizes, losses, seen)


def _fit(at: Floats, sizes: Floats, losses: Floats, seen: Floats) -> EnvelopeFit:
    """``losses`` (curves, points) is infinite where a curve does not reach."""
    there = np.isfinite(losses)
    best = losses.argmin(axis=0)
    smallest = np.where(there, sizes[:, None], np.inf).min(axis=0)
    largest = np.where(there, sizes[:, None], 0).max(axis=0)
    between = np.flatnonzero((smallest < sizes[best]) & (sizes[best] < largest))
    best = best[between]
    at_least(
        len(np.unique(sizes[best])),
        "sizes are best at some compute, between smaller and larger ones",
        3,
        "to draw a line: add sizes or budgets",
    )
    flops, size, tokens, loss = at[between], sizes[best], seen[best, between], losses[best, between]
    return EnvelopeFit(
        flops=tuple(flops.tolist()),
        size=tuple(size.tolist()),
        tokens=tuple(tokens.tolist()),
        loss=tuple(loss.tolist()),
        size_law=fit_power_law(flops, size),
        tokens_law=fit_power_law(flops, tokens),
    )
