"""Power laws, straight in logarithms, and the compute-optimal frontier that is made of them."""
# ruff: noqa: N803 - the field's symbols

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import Floats, array, check_enough, positive_columns

MOST_UNEVEN = 1e10
"""Largest over smallest standard deviation of points, from which on rounding moves the exponent by more than 1e-5."""


@dataclass(frozen=True)
class PowerLaw:
    """``y = coefficient * x ** exponent``."""

    coefficient: float
    exponent: float

    def __call__(self, x: ArrayLike) -> Floats:
        """Return the law at ``x``, of the same shape."""
        return self.coefficient * np.asarray(x, dtype=np.float64) ** self.exponent

    def inverse(self, y: ArrayLike) -> Floats:
        """Return the ``x`` at which the law gives ``y``, of the same shape.

        Raises:
            ArchlabError: a ``y`` is not positive, or no ``x`` in the range of numbers gives it, as where the law is flat.
        """
        wanted = array("y", y, np.float64)
        with np.errstate(all="ignore"):
            power = np.float64(1) / self.exponent
            x: Floats = (wanted / self.coefficient) ** power
        bad = wanted[~((wanted > 0) & np.isfinite(x) & (x > 0) & np.isfinite(power))]
        if bad.size:
            flat = f"the law is flat, its exponent {self.exponent:.3g}, or far from it"
            why = flat if 0 < bad[0] < np.inf else "give a positive number"
            raise ArchlabError(f"y={bad[0]:.4g}: no x in the range of numbers gives it: {why}")
        return x


@dataclass(frozen=True)
class Frontier:
    """Compute-optimal size and tokens as power laws of the FLOPs, and the loss there: ``L = E + excess(C)``."""

    size: PowerLaw
    tokens: PowerLaw
    E: float
    """The loss that no budget goes below."""
    excess: PowerLaw

    def loss(self, C: ArrayLike) -> Floats:
        """Return the least loss of a budget of ``C`` FLOPs."""
        return self.E + self.excess(C)

    def flops(self, loss: ArrayLike) -> Floats:
        """Return the FLOPs of the budget that reaches a loss, of the same shape.

        Raises:
            ArchlabError: no budget does.
        """
        wanted = array("loss", loss, np.float64)
        bad = wanted[~(wanted > self.E)]
        if bad.size:
            raise ArchlabError(
                f"loss {bad.min():.4g}: no budget reaches it by this fit, whose floor E is {self.E:.4g}: ask above"
            )
        return self.excess.inverse(wanted - self.E)


def fit_power_law(*, x: ArrayLike, y: ArrayLike, sigma: ArrayLike | None = None) -> PowerLaw:
    """Fit a power law: least squares of ``log y`` on ``log x``, weighted by ``1 / sigma ** 2``.

    Args:
        x: positive numbers, one a point.
        y: positive numbers, one a point.
        sigma: standard deviations of ``log y``; by default all equal.

    Raises:
        ArchlabError: a value is not positive, there are fewer than two different ``x`` or hardly different ones, or ``sigma``
            differ by more than a factor of 1e10.
    """
    columns = {"x": x, "y": y} | ({} if sigma is None else {"sigma": sigma})
    x_n, y_n, *sigmas = positive_columns(**columns)
    check_enough(len(np.unique(x_n)), "different values of x", 2, "to draw a line")
    weights = 1 / sigmas[0] if sigmas else np.ones_like(x_n)
    if weights.max() > MOST_UNEVEN * weights.min():
        uneven = f"the largest is more than {MOST_UNEVEN:g} times the smallest"
        raise ArchlabError(f"sigma: {uneven}: leave out points that count nothing")
    log_x = np.log(x_n)
    center = float(np.average(log_x, weights=weights**2))
    slope, intercept = np.polyfit(log_x - center, np.log(y_n), 1, w=weights)
    with np.errstate(over="ignore"):
        coefficient = float(np.exp(intercept - slope * center))
    if not 0 < coefficient < np.inf:
        raise ArchlabError(f"x: exponent {slope:.3g} leaves the range of numbers: give x that differ more")
    return PowerLaw(coefficient, float(slope))
