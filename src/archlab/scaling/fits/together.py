"""Fits the parametric law to many samples at once: Levenberg-Marquardt steps for all resamples of a bootstrap together."""
# ruff: noqa: N806 - the law's symbols

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from archlab.scaling.fits.columns import Floats

STEPS = 400
"""Steps at most; resamples that have not settled by then are left to the caller."""
SETTLED = 1e-13
"""Relative decrease of the objective below which a sample has settled, twice in a row."""


def predicted(p: Floats, x: Floats, y: Floats) -> Floats:
    """Return the losses (K, n) of laws ``p`` (K, 5) at centred logarithms ``x`` of size and ``y`` of tokens (n).

    A row of ``p`` holds the logarithms of the size term, the data term and the floor at the centre, then alpha and beta.
    """
    total: Floats = _terms(p, x, y).sum(axis=0)
    return total


def _terms(p: Floats, x: Floats, y: Floats) -> Floats:
    a, b, e, alpha, beta = (column[:, None] for column in p.T)
    with np.errstate(over="ignore"):
        terms: Floats = np.exp(np.stack(np.broadcast_arrays(a - alpha * x, b - beta * y, e)))
    return terms


def jacobian(p: Floats, x: Floats, y: Floats) -> Floats:
    """Return the derivatives (K, n, 5) of :func:`predicted`."""
    size, data, floor = _terms(p, x, y)
    return np.stack([size, data, floor, -size * x, -data * y], axis=-1)


def fit_together(
    start: Floats, x: Floats, y: Floats, loss: Floats, weights: Floats, delta: float | None = None
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Fit a law to each of K samples, from one start (5).

    Minimises the weighted sum of squares of the residuals of the loss over two, or with ``delta`` of Huber losses of the
    residuals of its logarithm. ``loss`` and ``weights`` are (K, n) or (n); a weight is how often a run was drawn, or the
    inverse of its variance.

    Returns:
        Laws (K, 5), objectives (K) and whether each has settled (K).
    """
    count = np.broadcast_shapes(np.atleast_2d(loss).shape, np.atleast_2d(weights).shape)
    loss, weights = np.broadcast_to(loss, count), np.broadcast_to(weights, count)
    observed = loss if delta is None else np.log(loss)
    p = np.repeat(np.asarray(start, float)[None], count[0], axis=0)
    damping, calm = np.full(count[0], 1e-3), np.zeros(count[0], dtype=int)
    value = _objective(p, x, y, observed, weights, delta)
    for _ in range(STEPS):
        active = np.flatnonzero(calm < 2)
        if not len(active):
            break
        now, w = p[active], weights[active]
        J, fitted = jacobian(now, x, y), predicted(now, x, y)
        if delta is None:
            residual = fitted - observed[active]
        else:
            J, residual = J / fitted[..., None], np.log(fitted) - observed[active]
            w = w * np.minimum(1, delta / np.maximum(np.abs(residual), 1e-300))
        weighted = np.swapaxes(J * w[..., None], 1, 2)
        H, g = weighted @ J, (weighted @ residual[..., None])[..., 0]
        diagonal = np.einsum("kii->ki", H)
        ridge = damping[active, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
        step = np.linalg.solve(H + ridge[:, :, None] * np.eye(5), -g[..., None])[..., 0]
        step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        tried = now + step
        reached = _objective(tried, x, y, observed[active], weights[active], delta)
        with np.errstate(invalid="ignore"):
            better = reached <= value[active]
            small = value[active] - reached <= SETTLED * value[active]
        calm[active] = np.where(small | ~better & (damping[active] > 1e8), calm[active] + 1, 0)
        p[active[better]], value[active[better]] = tried[better], reached[better]
        damping[active] = np.where(better, np.maximum(damping[active] / 5, 1e-9), np.maximum(damping[active] * 4, 1e-6))
    return p, value, calm >= 2


def _objective(p: Floats, x: Floats, y: Floats, observed: Floats, weights: Floats, delta: float | None) -> Floats:
    with np.errstate(all="ignore"):
        fitted = predicted(p, x, y)
        if delta is None:
            each = (fitted - observed) ** 2 / 2
        else:
            size = np.abs(np.log(fitted) - observed)
            each = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
        total: Floats = (weights * each).sum(axis=1)
    return np.where(np.isfinite(total), total, np.inf)
