"""The scaling laws of an architecture by four methods side by side, with intervals and checks."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.machine import one_blas_thread
from archlab.scaling import fits
from archlab.scaling.cost import Cost, CostFrontier, cost_of, power_laws
from archlab.scaling.fits import EnvelopeFit, Frontier, IsoFlopFit, ParametricFit, Resampling
from archlab.scaling.fits.columns import Floats
from archlab.scaling.fits.parametric import fit_resamples
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.study import RunTable

Method = Literal["isoflop", "huber", "variable-projection", "envelope", "asymmetric"]
METHODS: tuple[Method, ...] = get_args(Method)[:4]
"""Approach 2, approach 3, the same law by least squares, approach 1 (:mod:`archlab.scaling.fits`): the methods of every fit."""
AGREE = 1.5
"""Methods whose optimal sizes at the largest budget differ by more than this factor disagree."""
WINDOWS = (3.0, 6.0, np.inf)
"""Windows of the parabolas for which the exponent of N* is given beside that of the fit."""
SAME_EXPONENT = 0.005
"""Exponents that differ by less do not disagree, however narrow their intervals: without noise these have no width."""
Fit = IsoFlopFit | ParametricFit | EnvelopeFit


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; the bounds are None if there is none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Optimum:
    """Compute-optimal size and tokens of a budget, and the loss there."""

    size_exponent: Estimate
    """Exponent of compute-optimal parameters over FLOPs."""
    tokens_exponent: Estimate
    """Exponent of compute-optimal tokens over FLOPs."""
    flops: Estimate
    size: Estimate
    tokens: Estimate
    loss: Estimate | None
    """None for IsoFLOP and envelope, which do not determine the floor of the loss."""
    no_interval: str
    """Reason for missing intervals; else empty."""


@dataclass(frozen=True)
class HoldOut:
    """Error at the largest budget of a fit to the others."""

    budget: float
    size_ratio: float | None
    """Predicted over measured optimal parameters; None if the group has no minimum."""
    loss_error: float | None
    """Mean relative error of the losses; None for methods without a law of the loss."""


@dataclass(frozen=True)
class Law:
    """The law of one architecture by one method."""

    method: Method
    fit: Fit
    frontier: Frontier | CostFrontier
    largest: Optimum
    """Optimum at the largest budget."""
    hold_out: HoldOut | str
    """Error at the largest budget held out, or the reason why there is none."""
    by_window: dict[float, float]
    """Exponent of N* by window of the parabolas, for windows at which there is one; empty for other methods."""


@dataclass(frozen=True)
class Laws:
    """The laws of one architecture by all methods."""

    runs: RunTable
    cost: Cost
    """Training FLOPs a token over parameters."""
    by_method: dict[Method, Law]
    refused: dict[Method, str]
    """Reasons of the methods that give no law."""
    disagreement: str
    """Contradictions between the methods; else empty."""

    @property
    def no_laws(self) -> dict[Method, str]:
        """The reasons that a warning tells: not that imported runs have no training curves."""
        silent = all(isinstance(model, ImportedRun) for model in self.runs.models)
        return {method: reason for method, reason in self.refused.items() if not (silent and method == "envelope")}

    def state_points(self) -> list[tuple[float, float]]:
        """Return state and perplexity at every minimum; the state of its size follows a power law through the runs."""
        if not self.runs.minima or self.runs.state.min() <= 0:
            return []
        state_of = fits.fit_power_law(x=self.runs.N, y=self.runs.state)
        return [(float(state_of(minimum.size)), float(np.exp(minimum.loss))) for minimum in self.runs.minima.values()]


@one_blas_thread()
def fit_laws(
    runs: RunTable, resampling: Resampling, on_method: Callable[[], object] | None = None, *, asymmetric: bool = False
) -> Laws:
    """Fit an architecture's runs by every method; ``on_method`` is called after each. Refuses fewer than two sizes.

    ``asymmetric`` adds the method that is called so.
    """
    sizes = len(np.unique(runs.N))
    if sizes < 2:
        raise ArchlabError(f"sizes that have finished: {sizes}; a law takes two at least, better five a budget")
    cost = cost_of(runs)
    laws: dict[Method, Law] = {}
    refused: dict[Method, str] = {}
    for method in (*METHODS, *(("asymmetric",) if asymmetric else ())):
        try:
            fit = fit_method(runs, method)
            largest = optimum(runs, method, fit, cost, resampling, flops=float(runs.C.max()))
            laws[method] = Law(
                method, fit, frontier_of(fit, cost), largest, _hold_out(runs, method, cost), _by_window(runs, method)
            )
        except ArchlabError as error:
            refused[method] = str(error)
        if on_method is not None:
            on_method()
    return Laws(runs, cost, laws, refused, _disagreement(laws))


def fit_method(runs: RunTable, method: Method) -> Fit:
    """Fit an architecture's runs by one method."""
    if method == "isoflop":
        return fits.fit_isoflop(C=runs.C, N=runs.N, D=runs.D, loss=runs.loss, window=runs.window)
    if method == "envelope":
        rows, fractions, losses = runs.curves()
        if not len(rows):
            raise ArchlabError("it takes training curves, and the runs have none")
        flops, tokens = fractions * runs.C[rows], fractions * runs.D[rows]
        group = runs.budget[rows].tolist()
        return fits.fit_envelope(curve=rows.tolist(), C=flops, N=runs.N[rows], D=tokens, loss=losses, group=group)
    return fits.fit_parametric(N=runs.N, D=runs.D, loss=runs.loss, method=method)


def frontier_of(fit: Fit, cost: Cost) -> Frontier | CostFrontier:
    """Return the compute-optimal frontier of a fit."""
    return CostFrontier(fit, cost) if isinstance(fit, ParametricFit) else fit.frontier()


def optimum(
    runs: RunTable,
    method: Method,
    fit: Fit,
    cost: Cost,
    resampling: Resampling,
    *,
    flops: float | None = None,
    loss: float | None = None,
) -> Optimum:
    """Return the compute-optimal size and tokens of a budget (``flops``), or of the budget that reaches a ``loss``.

    The fit is that of the method to the runs, ``cost`` FLOPs a token over parameters. Refuses a loss that no budget reaches.
    """

    def numbers(fitted: Fit) -> Floats:
        frontier = frontier_of(fitted, cost)
        budget = float(frontier.flops(loss)) if loss is not None else flops
        assert budget is not None
        at = [budget, float(frontier.size(budget)), float(frontier.tokens(budget)), float(frontier.loss(budget))]
        laws = power_laws(frontier)
        return np.array([laws.size.exponent, laws.tokens.exponent, *np.log(at)])

    values = numbers(fit)
    low = high = np.full(len(values), np.nan)
    no_interval = ""
    try:
        rows, strata = np.arange(len(runs.C)), runs.strata()
        if isinstance(fit, ParametricFit):
            interval = resampling.interval(
                partial(_of_resamples, runs, method, fit, numbers), rows, strata=strata, vectorized=True
            )
        else:
            interval = resampling.interval(lambda some: numbers(fit_method(runs.take(some), method)), rows, strata=strata)
        low, high = interval.low, interval.high
    except ArchlabError as error:
        no_interval = str(error)
    bounds = np.stack([values, low, high], axis=1)
    bounds[2:] = np.exp(bounds[2:])
    estimates = [Estimate(float(v), *(float(x) if np.isfinite(x) else None for x in (lo, hi))) for v, lo, hi in bounds]
    size_exponent, tokens_exponent, budget, size, tokens, reached = estimates
    floor = isinstance(fit, ParametricFit)
    return Optimum(size_exponent, tokens_exponent, budget, size, tokens, reached if floor else None, no_interval)


def _by_window(runs: RunTable, method: Method) -> dict[float, float]:
    found = {}
    for window in sorted({*WINDOWS, runs.window}) if method == "isoflop" else ():
        with suppress(ArchlabError):
            fit = fits.fit_isoflop(C=runs.C, N=runs.N, D=runs.D, loss=runs.loss, window=window)
            found[window] = fit.size_law.exponent
    return found


def _of_resamples(
    runs: RunTable, method: Method, fit: ParametricFit, numbers: Callable[[Fit], Floats], rows: NDArray[np.intp]
) -> Floats:
    """Compute the numbers (K, m) of the fits to resamples (K, n); NaN where there is none."""
    found = np.full((len(rows), len(numbers(fit))), np.nan)
    assert method in ("huber", "variable-projection", "asymmetric")
    fitted = fit_resamples(rows, N=runs.N, D=runs.D, loss=runs.loss, method=method, start=fit)
    for row, one in zip(found, fitted, strict=True):
        with suppress(ArchlabError):
            if one is not None:
                row[:] = numbers(one)
    return found


def _hold_out(runs: RunTable, method: Method, cost: Cost) -> HoldOut | str:
    budget = float(runs.budget.max())
    held = runs.budget == budget
    try:
        fit = fit_method(runs.take(np.flatnonzero(~held)), method)
        frontier = frontier_of(fit, cost)
    except ArchlabError as error:
        return str(error)
    rest, flops, size_ratio, loss_error = runs.take(np.flatnonzero(held)), float(np.median(runs.C[held])), None, None
    with suppress(ArchlabError):
        minimum = fits.isoflop_minimum(flops=flops, N=rest.N, D=rest.D, loss=rest.loss)
        size_ratio = float(frontier.size(flops)) / minimum.size
    if isinstance(fit, ParametricFit):
        loss_error = float(np.mean(np.abs(fit(N=rest.N, D=rest.D) / rest.loss - 1)))
    return HoldOut(budget, size_ratio, loss_error)


def _disagreement(laws: dict[Method, Law]) -> str:
    reasons = []
    for first, second in combinations(laws.values(), 2):
        ratio = first.largest.size.value / second.largest.size.value
        names = f"{first.method} and {second.method}"
        if not 1 / AGREE <= ratio <= AGREE:
            reasons.append(f"{names}: the optimal sizes at the largest budget differ by a factor of {max(ratio, 1 / ratio):.2g}")
        # runs on the envelope are unfinished, their learning rate has not decayed: an error that no interval covers
        if second.method != "envelope" and _disjoint(first.largest.size_exponent, second.largest.size_exponent):
            values = f"{first.largest.size_exponent.value:.3f} and {second.largest.size_exponent.value:.3f}"
            reasons.append(f"{names}: the intervals of the exponents of N* ({values}) do not overlap")
    return "; ".join(reasons)


def _disjoint(first: Estimate, second: Estimate) -> bool:
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return False
    apart = first.high < second.low or second.high < first.low
    return apart and abs(first.value - second.value) > SAME_EXPONENT


def extrapolation(runs: RunTable, flops: float) -> float:
    """Return the factor by which a budget lies above the largest one, or below the smallest; at most 1 between them."""
    return max(flops / float(runs.C.max()), float(runs.C.min()) / flops)
