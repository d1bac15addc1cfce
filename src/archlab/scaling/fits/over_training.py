"""The over-training law: loss over compute at many tokens a parameter (arXiv 2403.08540)."""
# ruff: noqa: N803 - the field's symbols

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar, nnls

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import COLLINEAR, Floats, check_differ, check_enough, condition_number, positive_columns


@dataclass(frozen=True)
class OverTrainingFit:
    """``L(C, M) = E + (a M**eta + b M**-eta) C**-eta`` with the token multiplier ``M = D / N`` (its equation 4)."""

    E: float
    a: float
    b: float
    eta: float

    def __call__(self, *, C: ArrayLike, M: ArrayLike) -> Floats:
        """Predicted loss at ``C`` FLOPs and ``M`` tokens a parameter."""
        compute, multiplier = np.asarray(C, float), np.asarray(M, float)
        return self.E + (self.a * multiplier**self.eta + self.b * multiplier**-self.eta) * compute**-self.eta


def fit_over_training(*, C: ArrayLike, M: ArrayLike, loss: ArrayLike) -> OverTrainingFit:
    """Fit the law by least squares: for every exponent the rest is a non-negative least-squares problem.

    Args:
        C: training FLOPs of each run.
        M: tokens over parameters of each run.
        loss: final loss of each run.

    Raises:
        ArchlabError: fewer than five runs, fewer than two token multipliers, multipliers and compute on one line in logarithms
            (as of one budget), losses that are all equal, or a value that is not positive.
    """
    compute, multiplier, observed = positive_columns(C=C, M=M, loss=loss)
    check_enough(len(compute), "runs", 5, "to determine four numbers and an error")
    check_enough(len(np.unique(multiplier)), "token multipliers M", 2, "to tell their effect from that of compute")
    check_differ(observed)
    if (condition := condition_number(compute, multiplier)) > COLLINEAR:
        raise ArchlabError(
            f"C and M: the condition number of their logarithms is {condition:.2g}, more than {COLLINEAR:g}, so that their "
            "effects cannot be told apart; add other budgets, or other tokens a parameter at the same ones"
        )
    middle = np.exp(np.log(compute).mean())

    def solve(eta: float) -> tuple[Floats, float]:
        falling = (compute / middle) ** -eta
        columns = np.stack([np.ones_like(falling), multiplier**eta * falling, multiplier**-eta * falling], axis=1)
        return nnls(columns, observed)  # type: ignore[no-any-return]

    grid = np.geomspace(0.01, 1.0, 60)
    best = int(np.argmin([solve(eta)[1] for eta in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    eta = float(minimize_scalar(lambda x: solve(x)[1], bounds=bounds, method="bounded", options={"xatol": 1e-10}).x)
    (e, a, b), _ = solve(eta)
    return OverTrainingFit(float(e), float(a * middle**eta), float(b * middle**eta), eta)
