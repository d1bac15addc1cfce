"""Laws with a floor for several architectures, and joint resamples of them, robust to failed runs."""
# ruff: noqa: N803, N806 - the field's symbols

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from archlab.scaling.cost import Cost
from archlab.scaling.fits import fit_parametric
from archlab.scaling.fits.columns import Floats, check_enough
from archlab.scaling.fits.noise import FLOOR, error_scales, first_scales, outlier_limit
from archlab.scaling.fits.parametric import centred, check_exponents
from archlab.scaling.fits.together import fit_together, jacobian, predicted
from archlab.scaling.study import RunTable

ROUNDS = 12
"""Fits at most until no run enters or leaves."""
MISSED = 3.3
"""Mean error of a budget, in standard errors, beyond which the law misses it: one in a thousand by chance."""
STEP = 0.1
"""Distance of sizes, in logarithms, at which the least loss of a budget is first looked for."""
FINER = 20
"""The factor by which it is smaller around the best of these: the count of a spec jumps where a layer is added."""


@dataclass(frozen=True)
class JointLaw:
    """The law of an architecture by weighted least squares without outliers, and resamples of it."""

    table: RunTable
    cost: Cost
    """Training FLOPs a token over parameters."""
    centre: tuple[float, float]
    """Mean logarithms of size and tokens."""
    p: Floats
    """The law: see :func:`archlab.scaling.fits.together.predicted`."""
    scale: Floats
    """Standard deviation of the error of each run, outliers included."""
    error: Floats
    """Residual of each run in its standard deviations, NaN for outliers."""
    freedom: float
    """Degrees of freedom of the standard deviations."""
    resamples: Floats
    """Laws (K, 5) fitted to resamples; none at first."""

    @property
    def x(self) -> Floats:
        """The logarithms of the sizes, centred."""
        return np.asarray(np.log(self.table.N) - self.centre[0])

    @property
    def y(self) -> Floats:
        """The logarithms of the tokens, centred."""
        return np.asarray(np.log(self.table.D) - self.centre[1])

    @property
    def kept(self) -> NDArray[np.bool_]:
        """The runs that are no outliers."""
        return np.isfinite(self.error)


def joint_law(table: RunTable, cost: Cost) -> JointLaw:
    """Fit the law of an architecture; refuses runs that do not determine one."""
    check_enough(len(table.loss), "runs", 8, "to determine five numbers and the size of errors")
    start = fit_parametric(N=table.N, D=table.D, loss=table.loss)
    centre = float(np.log(table.N).mean()), float(np.log(table.D).mean())
    p = centred(start, table.N, table.D, table.loss)
    law = JointLaw(table, cost, centre, p, np.ones_like(table.loss), np.zeros_like(table.loss), 1, np.empty((0, 5)))
    x, y, floor = law.x, law.y, FLOOR * table.loss
    residual = table.loss - predicted(p[None], x, y)[0]
    scale = np.maximum(first_scales(residual, table.budget, 5), floor)
    kept = np.abs(residual) <= outlier_limit(len(residual)) * scale
    for _ in range(ROUNDS):
        freedom = kept.sum() - 5 - (len(np.unique(table.budget[kept])) > 1)
        (p,), _, _ = fit_together(p, x, y, table.loss, kept / scale**2)
        residual = table.loss - predicted(p[None], x, y)[0]
        J = jacobian(p[None], x, y)[0] / scale[:, None]
        leverage = np.einsum("ni,ij,nj->n", J, np.linalg.pinv(J[kept].T @ J[kept]), J)
        spare = np.where(kept, 1 - np.minimum(leverage, 0.95), 1 + leverage)
        square = np.maximum(residual**2 / spare, floor**2)
        scale = np.maximum(error_scales(square[kept], table.budget[kept], table.budget), floor)
        before, kept = kept, np.abs(residual) <= outlier_limit(freedom) * scale * np.sqrt(spare)
        if (kept == before).all():
            break
    check_exponents(float(p[3]), float(p[4]))
    error = np.where(kept, residual / scale / np.sqrt(spare), np.nan)
    return replace(law, p=p, scale=scale, error=error, freedom=float(freedom))


def outliers(law: JointLaw) -> Iterator[tuple[str, str]]:
    """Yield the runs that the law leaves out, and the budgets that it misses, each as a cause and a case."""
    table, expected = law.table, predicted(law.p[None], law.x, law.y)[0]
    for row in np.flatnonzero(~law.kept):
        where = f"{table.label}: {table.N[row]:.3g} parameters at {table.budget[row]:.3g} FLOPs, seed {table.seed[row]}"
        yield (
            "outliers left out of comparisons",
            f"{where}: loss {table.loss[row]:.4g} where the law gives {expected[row]:.4g}",
        )
    for budget in np.unique(table.budget):
        rows = law.kept & (table.budget == budget)
        if rows.sum() > 2 and abs(law.error[rows].mean()) * rows.sum() ** 0.5 > MISSED:
            missed = (table.loss - expected)[rows].mean()
            yield (
                "the law of comparisons misses the runs of a budget",
                f"{table.label} at {budget:.3g} FLOPs by {missed:+.3g} on average",
            )


def resampled(laws: Sequence[JointLaw], resamples: int, seed: int = 0) -> list[JointLaw]:
    """Fit again to the fitted losses and errors drawn with replacement.

    Errors in units of their standard deviation are drawn together for runs of all architectures with equal budget, size index
    and seed, so that what they share stays shared.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    keys = [list(zip(law.table.budget, law.table.size_index, law.table.seed, strict=True)) for law in laws]
    index = {key: number for number, key in enumerate(sorted({key for some in keys for key in some}))}
    drawn = rng.integers(len(index), size=(resamples, len(index)))
    found = []
    for law, some in zip(laws, keys, strict=True):
        places = np.array([index[key] for key in some])
        known = law.error[law.kept] - law.error[law.kept].mean()
        known /= max(np.sqrt(np.mean(known**2)), 1e-300)
        pool = np.full(len(index), np.nan)
        pool[places[law.kept]] = known
        errors = pool[drawn]
        errors = np.where(np.isnan(errors), known[rng.integers(len(known), size=errors.shape)], errors)[:, places]
        losses = predicted(law.p[None], law.x, law.y) + law.scale * errors
        p, _, _ = fit_together(law.p, law.x, law.y, losses, law.kept / law.scale**2)
        found.append(replace(law, resamples=p))
    return found


def least_loss(law: JointLaw, p: Floats, C: Floats) -> Floats:
    """Return the loss (K, m) of the best size at every budget ``C`` (m) by laws ``p`` (K, 5), at the architecture's cost."""
    size = np.log(law.table.N)
    grid = np.arange(size.min() - 5, size.max() + 8, STEP / FINER)
    a, b, e, alpha, beta = (column[:, None] for column in p.T)
    with np.errstate(over="ignore"):
        of_size = np.exp(a - alpha * (grid - law.centre[0]))
        of_data = np.exp(b + beta * (law.cost.log(grid) + law.centre[1]))
    coarse_size, coarse_data = of_size[:, ::FINER].copy(), of_data[:, ::FINER].copy()
    losses = np.empty((len(p), len(C)))
    rows = np.arange(len(p))[:, None]
    near = np.arange(-FINER, FINER + 1)
    for column, flops in enumerate(np.log(C)):
        less = np.exp(-beta * flops)
        best = FINER * (coarse_size + coarse_data * less).argmin(axis=1)
        places = np.clip(best, FINER, len(grid) - FINER - 1)[:, None] + near
        total = of_size[rows, places] + of_data[rows, places] * less
        least = np.clip(total.argmin(axis=1), 1, len(near) - 2)[:, None]
        low, middle, high = (total[rows, least + by][:, 0] for by in (-1, 0, 1))
        bend = low - 2 * middle + high
        with np.errstate(all="ignore"):
            losses[:, column] = middle - np.where(bend > 0, (high - low) ** 2 / (8 * bend), 0)
    reached: Floats = losses + np.exp(e)
    return reached
