"""The scaling laws of an architecture by four methods side by side, with intervals, and how far to believe them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from archlab.errors import ArchlabError
from archlab.scaling.fits import (
    EnvelopeFit,
    Frontier,
    IsoFlopFit,
    ParametricFit,
    PowerLaw,
    Resampling,
    fit_envelope,
    fit_isoflop,
    fit_parametric,
    fit_power_law,
    isoflop_minimum,
)
from archlab.scaling.fits.columns import Floats
from archlab.scaling.study import Family

Method = Literal["isoflop", "huber", "variable-projection", "envelope"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Approach 2; approach 3; the same law by least squares; approach 1 (:mod:`archlab.scaling.fits`)."""
AGREE = 1.5
"""Methods whose optimal sizes at the largest budget differ by more than this factor disagree."""
Fit = IsoFlopFit | ParametricFit | EnvelopeFit


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; without one if the resamples could not be fitted."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Answer:
    """What a budget is best spent on, and the loss that it buys."""

    size_exponent: Estimate
    """Of optimal parameters over FLOPs."""
    tokens_exponent: Estimate
    flops: Estimate
    size: Estimate
    tokens: Estimate
    loss: Estimate | None
    """None by the methods that do not tell the floor of the loss: IsoFLOP and envelope."""
    no_interval: str
    """Why intervals are missing; else empty."""


@dataclass(frozen=True)
class HoldOut:
    """How well a fit to the other budgets predicts the largest one."""

    budget: float
    size_ratio: float | None
    """Predicted optimal parameters over those of the group's minimum; None if that is not bracketed."""
    loss_error: float | None
    """Mean absolute error of the losses of its runs, relative; None by the methods without a law of the loss."""


@dataclass(frozen=True)
class Law:
    """What one method gives."""

    method: Method
    fit: Fit
    frontier: Frontier
    largest: Answer
    """At the largest budget."""
    hold_out: HoldOut | str
    """Or why there is none."""


@dataclass(frozen=True)
class Laws:
    """The laws of one architecture."""

    family: Family
    cost: PowerLaw
    """Training FLOPs a token over parameters, as its runs had them."""
    found: dict[Method, Law]
    refused: dict[Method, str]
    disagreement: str
    """How the methods contradict each other; else empty."""

    @property
    def isoflop(self) -> IsoFlopFit | None:
        """The minima and their power laws, if there are two minima."""
        law = self.found.get("isoflop")
        return law.fit if law is not None and isinstance(law.fit, IsoFlopFit) else None

    def state_points(self) -> list[tuple[float, float]]:
        """State and perplexity at every minimum; the state of its size follows a power law through the runs."""
        if not self.family.minima or self.family.state.min() <= 0:
            return []
        state_of = fit_power_law(x=self.family.N, y=self.family.state)
        return [(float(state_of(minimum.size)), float(np.exp(minimum.loss))) for minimum in self.family.minima.values()]


def fit_laws(family: Family, resampling: Resampling, on_method: Callable[[], object] = lambda: None) -> Laws:
    """Fit an architecture's runs by every method; ``on_method`` is called after each.

    Raises:
        ArchlabError: it has fewer than two finished trainings of different sizes.
    """
    sizes = len(np.unique(family.N))
    if sizes < 2:
        raise ArchlabError(f"{family.label}: sizes that have finished: {sizes}; a law takes two at least, better five a budget")
    cost = fit_power_law(x=family.N, y=family.C / family.D)
    found: dict[Method, Law] = {}
    refused: dict[Method, str] = {}
    for method in METHODS:
        try:
            found[method] = _law(family, method, cost, resampling)
        except ArchlabError as error:
            refused[method] = str(error)
        on_method()
    return Laws(family, cost, found, refused, _disagreement(found))


def fit_family(family: Family, method: Method, start: Fit | None = None) -> Fit:
    """One method on one architecture.

    Raises:
        ArchlabError: its runs do not determine it.
    """
    if method == "isoflop":
        return fit_isoflop(C=family.C, N=family.N, D=family.D, loss=family.loss)
    if method == "envelope":
        rows, shares, losses = family.curves()
        flops, tokens = shares * family.C[rows], shares * family.D[rows]
        group = family.budget[rows].tolist()
        return fit_envelope(curve=rows.tolist(), C=flops, N=family.N[rows], D=tokens, loss=losses, group=group)
    from_fit = start if isinstance(start, ParametricFit) else None
    return fit_parametric(N=family.N, D=family.D, loss=family.loss, method=method, start=from_fit)


def frontier_of(fit: Fit, cost: PowerLaw) -> Frontier:
    """What budgets are best spent on, by a fit."""
    return fit.frontier(cost) if isinstance(fit, ParametricFit) else fit.frontier()


def _law(family: Family, method: Method, cost: PowerLaw, resampling: Resampling) -> Law:
    fit = fit_family(family, method)
    largest = answer(family, method, fit, cost, resampling, flops=float(family.C.max()))
    return Law(method, fit, frontier_of(fit, cost), largest, _hold_out(family, method, cost))


def answer(
    family: Family,
    method: Method,
    fit: Fit,
    cost: PowerLaw,
    resampling: Resampling,
    *,
    flops: float | None = None,
    loss: float | None = None,
) -> Answer:
    """What a budget, or the budget that reaches a loss, is best spent on.

    Args:
        family: the runs.
        method: how they were fitted.
        fit: the result.
        cost: FLOPs a token over parameters.
        resampling: how intervals are made.
        flops: the budget.
        loss: the loss, in place of the budget.

    Raises:
        ArchlabError: no budget reaches the loss.
    """

    def numbers(fitted: Fit) -> Floats:
        frontier = frontier_of(fitted, cost)
        budget = float(frontier.flops(loss)) if loss is not None else flops
        assert budget is not None
        at = [budget, float(frontier.size(budget)), float(frontier.tokens(budget)), float(frontier.loss(budget))]
        return np.array([frontier.size.exponent, frontier.tokens.exponent, *np.log(at)])

    values = numbers(fit)
    low = high = np.full(len(values), np.nan)
    no_interval = ""
    try:
        interval = resampling.interval(
            lambda rows: numbers(fit_family(family.take(rows), method, fit)), np.arange(len(family.C)), strata=family.strata()
        )
        low, high = interval.low, interval.high
    except ArchlabError as error:
        no_interval = str(error)
    bounds = np.stack([values, low, high], axis=1)
    bounds[2:] = np.exp(bounds[2:])
    estimates = [Estimate(float(v), *(float(x) if np.isfinite(x) else None for x in (lo, hi))) for v, lo, hi in bounds]
    size_exponent, tokens_exponent, budget, size, tokens, reached = estimates
    has_floor = isinstance(fit, ParametricFit)
    return Answer(size_exponent, tokens_exponent, budget, size, tokens, reached if has_floor else None, no_interval)


def _hold_out(family: Family, method: Method, cost: PowerLaw) -> HoldOut | str:
    budget = float(family.budget.max())
    held = family.budget == budget
    try:
        fit = fit_family(family.take(np.flatnonzero(~held)), method)
        frontier = frontier_of(fit, cost)
    except ArchlabError as error:
        return str(error)
    rest, loss_error = family.take(np.flatnonzero(held)), None
    if isinstance(fit, ParametricFit):
        loss_error = float(np.mean(np.abs(fit(N=rest.N, D=rest.D) / rest.loss - 1)))
    return HoldOut(budget, _size_ratio(rest, frontier), loss_error)


def _size_ratio(group: Family, frontier: Frontier) -> float | None:
    flops = float(np.median(group.C))
    try:
        return float(frontier.size(flops)) / isoflop_minimum(flops=flops, N=group.N, D=group.D, loss=group.loss).size
    except ArchlabError:
        return None


def _disagreement(found: dict[Method, Law]) -> str:
    laws = list(found.values())
    reasons = []
    for place, first in enumerate(laws):
        for second in laws[place + 1 :]:
            ratio = first.largest.size.value / second.largest.size.value
            names = f"{first.method} and {second.method}"
            if not 1 / AGREE <= ratio <= AGREE:
                reasons.append(
                    f"{names}: the optimal sizes at the largest budget differ by a factor of {max(ratio, 1 / ratio):.2g}"
                )
            # the envelope's trainings are unfinished, their learning rate has not decayed: an error that no interval tells
            if second.method != "envelope" and _apart(first.largest.size_exponent, second.largest.size_exponent):
                values = f"{first.largest.size_exponent.value:.3f} and {second.largest.size_exponent.value:.3f}"
                reasons.append(f"{names}: the intervals of the exponents of N* ({values}) do not overlap")
    return "; ".join(reasons)


def _apart(first: Estimate, second: Estimate) -> bool:
    bounds = (first.low, first.high, second.low, second.high)
    if None in bounds:
        return False
    low_1, high_1, low_2, high_2 = (float(x) for x in bounds if x is not None)
    return high_1 < low_2 or high_2 < low_1


def extrapolation(family: Family, flops: float) -> float:
    """How many times beyond the largest budget, or below the smallest, a budget lies; at most 1 between them."""
    return max(flops / float(family.C.max()), float(family.C.min()) / flops)
