"""``L(N, D) = E + A / N**alpha + B / D**beta``: the parametric law (arXiv 2203.15556, section 3.3)."""
# ruff: noqa: N803, N806 - the field's symbols

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog, minimize, nnls

from archlab.errors import ArchlabError
from archlab.fields import check_value
from archlab.scaling.fits.columns import (
    COLLINEAR,
    RANGE,
    Floats,
    check_differ,
    check_enough,
    condition_number,
    positive_columns,
)
from archlab.scaling.fits.power_law import Frontier, PowerLaw
from archlab.scaling.fits.together import fit_together

Method = Literal["huber", "variable-projection", "asymmetric"]
HUBER_DELTA = 1e-3
OVER_PREDICTION = 10.0
"""Weight of predictions above the loss by the method ``asymmetric``."""
CHINCHILLA_COST = PowerLaw(6.0, 1.0)
"""Training FLOPs a token over parameters, by ``C = 6 N D``."""
STEEPEST = 3.0
"""Largest exponent of a law; published ones are below 1, and a fit beyond bends round a single run."""
SMALLEST_TERM = 1e-4
POLISHED_STARTS = 12
"""Starts of the grid that are polished: those with the lowest objective."""


@dataclass(frozen=True)
class ParametricFit:
    """``L(N, D) = E + A / N**alpha + B / D**beta``, loss in the unit of the data."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float
    """Minimum that the method reached, summed over the runs."""

    def __call__(self, *, N: ArrayLike, D: ArrayLike) -> Floats:
        """Return the predicted loss at ``N`` parameters and ``D`` tokens."""
        return self.E + self.A * np.asarray(N, float) ** -self.alpha + self.B * np.asarray(D, float) ** -self.beta

    def frontier(self, cost: PowerLaw = CHINCHILLA_COST) -> Frontier:
        """Return the compute-optimal frontier (equation 4 of the paper).

        Args:
            cost: training FLOPs a token over parameters. The default is 6 a parameter; a small model costs more, for layers
                compute more than products with their parameters.

        Raises:
            ArchlabError: the fit found no effect of size or of data, so there is nothing to balance; or one that leaves the
                range of numbers; or the cost does not grow with the parameters.
        """
        if not (0 < cost.coefficient < np.inf and 0 < cost.exponent < np.inf):
            raise ArchlabError(f"cost={cost}: larger models cost more: give a positive coefficient and exponent")
        for what, factor, exponent in (("size", self.A, self.alpha), ("data", self.B, self.beta)):
            if min(factor, exponent) <= 0:
                raise ArchlabError(f"the fit sees no effect of {what} on the loss: add runs that differ more in it")
        check_exponents(self.alpha, self.beta)
        k, p = np.float64(cost.coefficient), cost.exponent
        total = self.alpha + p * self.beta
        with np.errstate(all="ignore"):
            ratio = np.float64(self.alpha * self.A) / (p * self.beta * self.B)
            best = ratio ** (1 / total) * k ** (-self.beta / total)
            seen = best**-p / k
            excess = self.A * best**-self.alpha + self.B * seen**-self.beta
        if not np.isfinite([best, seen, excess]).all() or min(best, seen, excess) <= 0:
            raise ArchlabError(
                f"the runs do not determine the exponents (alpha {self.alpha:.3g}, beta {self.beta:.3g}): add runs"
            )
        size = PowerLaw(float(best), self.beta / total)
        tokens = PowerLaw(float(seen), 1 - p * size.exponent)
        return Frontier(size, tokens, self.E, PowerLaw(float(excess), -self.alpha * self.beta / total))


def fit_parametric(
    *, N: ArrayLike, D: ArrayLike, loss: ArrayLike, method: Method = "huber", start: ParametricFit | None = None
) -> ParametricFit:
    """Fit the parametric law to runs.

    Args:
        N: parameters of each run.
        D: tokens of each run.
        loss: final loss of each run, positive.
        method: ``huber`` minimises the sum of Huber losses (delta 1e-3) of the log loss by L-BFGS with the analytic
            gradient from a grid of starts, as approach 3 does. ``variable-projection`` minimises squared errors of the
            loss: for every ``(alpha, beta)`` the rest is a non-negative least-squares problem. ``asymmetric`` minimises
            absolute errors of the loss, those of predictions above it ten times (github.com/kyo-takano/chinchilla): for every
            ``(alpha, beta)`` a linear programme.
        start: begin at this fit instead of at a grid, as for the resamples of a bootstrap. Its factors must be finite and not
            negative, its exponents positive.

    Raises:
        ArchlabError: fewer than six runs or than three sizes and amounts of data, losses that are all equal, tokens in
            proportion to the size or runs of one budget alone, a value that is not positive, an unknown method, or a start that
            is no law or from which none is found.
    """
    check_value("method", method, Method)
    check_value("start", start, ParametricFit | None)
    size, tokens, observed = positive_columns(N=N, D=D, loss=loss)
    _check_runs(size, tokens, observed)
    for name in ("E", "A", "B", "alpha", "beta") if start is not None else ():
        value = getattr(start, name)
        if not (RANGE[0] <= value <= RANGE[1] if name in ("alpha", "beta") else 0 <= value < np.inf):
            raise ArchlabError(f"start.{name}={value}: a law that falls has finite positive numbers: begin at another fit")
    if method == "huber":
        return _huber(size, tokens, observed, start)
    return _projected(size, tokens, observed, start, *((_asymmetric, 1) if method == "asymmetric" else (_least_squares, 2)))


def fit_resamples(
    rows: NDArray[np.intp], *, N: Floats, D: Floats, loss: Floats, method: Method, start: ParametricFit
) -> list[ParametricFit | None]:
    """Fit the law to resamples together, each from the fit to all runs; None for those that :func:`fit_parametric` refuses.

    Absolute errors have no second derivative, so that ``asymmetric`` fits one at a time.

    ``rows`` (K, n) are the runs of each resample. The optima are those of :func:`fit_parametric`: what has not settled there is
    given to it.
    """
    x, y = np.log(N) - np.log(N).mean(), np.log(D) - np.log(D).mean()
    drawn = np.zeros((len(rows), len(N)))
    np.add.at(drawn, (np.arange(len(rows))[:, None], rows), 1)
    huber = method == "huber"
    if method == "asymmetric":
        p, value, settled = np.zeros((len(rows), 5)), np.zeros(len(rows)), np.zeros(len(rows), dtype=bool)
    else:
        p, value, settled = fit_together(centred(start, N, D, loss), x, y, loss, drawn, HUBER_DELTA if huber else None)
    found: list[ParametricFit | None] = []
    for row, one, objective, done in zip(rows, p, value, settled, strict=True):
        try:
            _check_runs(N[row], D[row], loss[row])
            if done:
                found.append(_law(one, N, D, float(objective) * (1 if huber else 2)))
            else:
                found.append(fit_parametric(N=N[row], D=D[row], loss=loss[row], method=method, start=start))
        except ArchlabError:
            found.append(None)
    return found


def centred(fit: ParametricFit, N: Floats, D: Floats, loss: Floats) -> Floats:
    """Return a law as :mod:`archlab.scaling.fits.together` takes it; terms that vanish begin at a small share of the loss."""
    with np.errstate(divide="ignore"):
        a, b, e = np.log([fit.A, fit.B, fit.E])
    terms = np.array([a - fit.alpha * np.log(N).mean(), b - fit.beta * np.log(D).mean(), e])
    return np.append(np.maximum(terms, np.log(SMALLEST_TERM * loss.min())), [fit.alpha, fit.beta])


def _law(p: Floats, N: Floats, D: Floats, objective: float) -> ParametricFit:
    a, b, e, alpha, beta = map(float, p)
    with np.errstate(over="ignore"):
        E, A, B = (float(np.exp(x)) for x in (e, a + alpha * np.log(N).mean(), b + beta * np.log(D).mean()))
    return ParametricFit(E, A, B, alpha, beta, objective)


def _check_runs(size: Floats, tokens: Floats, loss: Floats) -> None:
    different = np.unique(np.stack([size, tokens]), axis=1).shape[1]
    check_enough(different, "different runs", 6, "to determine five numbers and an error")
    check_enough(len(np.unique(size)), "sizes N", 3, "to tell a power law from a constant")
    check_enough(len(np.unique(tokens)), "amounts of data D", 3, "to tell a power law from a constant")
    check_differ(loss)
    check_design(size, tokens)


def check_design(size: Floats, tokens: Floats) -> None:
    """Refuse sizes and tokens on one line in logarithms; the ArchlabError names the condition number and what to add."""
    condition = condition_number(size, tokens)
    if condition > COLLINEAR:
        rising = "tokens rise with the size: add runs of the same sizes on more or fewer tokens"
        falling = "all runs take about the same compute: add another budget"
        raise ArchlabError(
            f"N and D: the condition number of their logarithms is {condition:.2g}, more than {COLLINEAR:g}, so that their "
            f"effects cannot be told apart; {rising if np.cov(np.log(size), np.log(tokens))[0, 1] > 0 else falling}"
        )


def check_exponents(alpha: float, beta: float) -> None:
    """Refuse exponents that no law of a loss has."""
    if not (0 < alpha <= STEEPEST and 0 < beta <= STEEPEST):
        raise ArchlabError(
            f"the runs do not determine the exponents (alpha {alpha:.3g}, beta {beta:.3g}; a law has 0 to {STEEPEST:g}): add "
            "budgets, sizes or seeds"
        )


def _huber(size: Floats, tokens: Floats, loss: Floats, start: ParametricFit | None) -> ParametricFit:
    # Logarithms are centred, so that the coefficients and the exponents are nearly uncorrelated.
    log_n, log_d, log_loss = np.log(size), np.log(tokens), np.log(loss)
    mid_n, mid_d = log_n.mean(), log_d.mean()
    centred = log_n - mid_n, log_d - mid_d

    def objective(p: Floats) -> tuple[float, Floats]:
        value, gradient = _huber_objective(p[:, None], *centred, log_loss)
        return float(value[0]), gradient[:, 0]

    if start is None:
        level = float(log_loss.min())
        axes = (level + np.log([0.1, 0.3, 0.6]), level + np.log([0.1, 0.3, 0.6]), level + np.log([0.3, 0.6, 0.9]))
        grid = np.array(list(product(*axes, *2 * ([0.1, 0.3, 0.5, 0.8, 1.2],)))).T
        values, _ = _huber_objective(grid, *centred, log_loss)
        starts = grid[:, np.argsort(values)[:POLISHED_STARTS]].T
    else:
        coefficients = np.log(np.maximum([start.A, start.B, start.E], 1e-300))
        starts = np.array([[*coefficients - np.array([start.alpha * mid_n, start.beta * mid_d, 0]), start.alpha, start.beta]])
    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9}
    results = [minimize(objective, p, jac=True, method="L-BFGS-B", options=options) for p in starts]
    best = min(results, key=lambda result: float(result.fun))
    a, b, e, alpha, beta = map(float, best.x)
    with np.errstate(over="ignore"):  # what the runs do not determine may be infinite
        floor, A, B = (float(np.exp(x)) for x in (e, a + alpha * mid_n, b + beta * mid_d))
    return ParametricFit(floor, A, B, alpha, beta, float(best.fun))


def _huber_objective(p: Floats, log_n: Floats, log_d: Floats, log_loss: Floats) -> tuple[Floats, Floats]:
    """Values (K) and gradients (5, K) at the points ``p`` (5, K): logs of A, B, E at the centre, then alpha, beta."""
    a, b, e, alpha, beta = (row[:, None] for row in p)
    terms = np.stack(np.broadcast_arrays(a - alpha * log_n, b - beta * log_d, e))
    top = terms.max(axis=0)
    parts = np.exp(terms - top)
    total = parts.sum(axis=0)
    residual = top + np.log(total) - log_loss
    size = np.abs(residual)
    value = np.where(size <= HUBER_DELTA, residual**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2)).sum(axis=1)
    by_term = np.clip(residual, -HUBER_DELTA, HUBER_DELTA) * parts / total
    gradient = np.stack(
        [by_term[0].sum(1), by_term[1].sum(1), by_term[2].sum(1), -(by_term[0] * log_n).sum(1), -(by_term[1] * log_d).sum(1)]
    )
    return value, gradient


def _projected(
    size: Floats,
    tokens: Floats,
    loss: Floats,
    start: ParametricFit | None,
    inner: Callable[[Floats, Floats], tuple[float, Floats]],
    degree: int,
) -> ParametricFit:
    """Minimise over the exponents alone; the coefficients follow from them by ``inner``, whose objective goes with that power of
    the loss."""
    # Relative to the geometric means, so that the columns and losses are of one magnitude, whatever their units.
    mid_n, mid_d, unit = (np.exp(np.log(column).mean()) for column in (size, tokens, loss))
    scaled = loss / unit

    def solve(exponents: Floats) -> tuple[float, Floats]:
        alpha, beta = exponents
        if min(alpha, beta) <= 0:
            return np.inf, np.zeros(3)
        with np.errstate(over="ignore"):
            columns = np.stack([np.ones_like(size), (size / mid_n) ** -alpha, (tokens / mid_d) ** -beta], axis=1)
        if not np.isfinite(columns).all():
            return np.inf, np.zeros(3)
        return inner(columns, scaled)

    if start is None:
        grid = [np.array(point) for point in product([0.1, 0.2, 0.3, 0.45, 0.6, 0.9, 1.3], repeat=2)]
        starts = sorted(grid, key=lambda point: solve(point)[0])[:3]
    else:
        starts = [np.array([start.alpha, start.beta])]
    if not np.isfinite(solve(starts[0])[0]):
        where = "of a grid" if start is None else f"alpha {start.alpha:.3g}, beta {start.beta:.3g} of start"
        raise ArchlabError(f"exponents {where}: no law with them is near these runs: begin at another fit or take method='huber'")
    options = {"xatol": 1e-8, "fatol": 1e-11, "maxiter": 2000}
    simplices = [{"initial_simplex": [point, point * [1.05, 1], point * [1, 1.05]]} for point in starts]
    results = [
        minimize(lambda p: solve(p)[0], point, method="Nelder-Mead", options=options | simplex)
        for point, simplex in zip(starts, simplices, strict=True)
    ]
    best = min(results, key=lambda result: float(result.fun))
    value, (e, a, b) = solve(best.x)
    alpha, beta = map(float, best.x)
    with np.errstate(over="ignore", invalid="ignore"):
        E, A, B = float(unit * e), float(unit * a * mid_n**alpha), float(unit * b * mid_d**beta)
    return ParametricFit(E, A, B, alpha, beta, float(value * unit**degree))


def _least_squares(columns: Floats, loss: Floats) -> tuple[float, Floats]:
    coefficients, norm = nnls(columns, loss)
    return float(norm**2), coefficients


def _asymmetric(columns: Floats, loss: Floats) -> tuple[float, Floats]:
    n = len(loss)
    weights = np.concatenate([np.zeros(3), np.ones(n), np.full(n, OVER_PREDICTION)])
    # loss - prediction = under - over, with both of them not negative
    solution = linprog(weights, A_eq=np.hstack([columns, np.eye(n), -np.eye(n)]), b_eq=loss, method="highs")
    return (float(solution.fun), solution.x[:3]) if solution.success else (np.inf, np.zeros(3))
