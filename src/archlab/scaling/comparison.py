"""Which of two architectures is better for the same compute, and how much compute that is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.scaling.fits import Resampling, StateFit, fit_isoflop, fit_power_law, fit_state
from archlab.scaling.laws import Estimate, Laws
from archlab.scaling.study import Family


@dataclass(frozen=True)
class Comparison:
    """Two architectures at one budget, each at its own best size."""

    first: str
    second: str
    budget: float
    difference: Estimate
    """Loss of the second minus loss of the first, in nats a token: positive where the first is better."""
    multiplier: Estimate | None
    """How many times the budget the second needs for the first's loss, by the power law through its minima; None if it has
    fewer than two."""
    pairs: int
    """Runs that both have: same budget, place among the sizes, and seed; resampled together where enough draws have minima."""


def compare(first: Family, second: Family, resampling: Resampling) -> list[Comparison]:
    """At every budget at which both have a minimum between their sizes."""
    rows_1, rows_2 = _pairs(first, second)
    found = []
    for budget in np.unique(first.budget[rows_1]):
        here = np.flatnonzero(first.budget[rows_1] == budget)
        try:
            difference = _difference(first, second, rows_1[here], rows_2[here])
        except ArchlabError:
            continue
        interval = _bounds(difference, first, second, rows_1[here], rows_2[here], resampling)
        found.append(
            Comparison(
                first=first.label,
                second=second.label,
                budget=float(budget),
                difference=Estimate(difference, *interval),
                multiplier=_multiplier(first, second, float(budget), resampling),
                pairs=len(here),
            )
        )
    return found


Rows = NDArray[np.intp]
Bounds = tuple[float | None, float | None]


def _pairs(first: Family, second: Family) -> tuple[Rows, Rows]:
    """Rows of both that stand for the same budget, place and seed."""

    def names(family: Family) -> dict[tuple[float, int, int], int]:
        keys = zip(family.budget.tolist(), family.place.tolist(), family.seed.tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    ours, theirs = names(first), names(second)
    both = [key for key in ours if key in theirs]
    return np.array([ours[key] for key in both], dtype=np.intp), np.array([theirs[key] for key in both], dtype=np.intp)


def _difference(first: Family, second: Family, rows_1: Rows, rows_2: Rows) -> float:
    return second.minimum(rows_2).loss - first.minimum(rows_1).loss


def _bounds(value: float, first: Family, second: Family, rows_1: Rows, rows_2: Rows, resampling: Resampling) -> Bounds:
    """Of the difference: the pairs of the budget drawn together, or where too few draws have two minima, each side alone."""

    def difference(own: Rows, others: Rows) -> float:
        return _difference(first, second, own, others)

    try:
        interval = resampling.interval(difference, rows_1, rows_2, strata=first.strata()[rows_1])
    except ArchlabError:
        return _each_alone(value, difference, (first, rows_1), (second, rows_2), resampling)
    return float(interval.low), float(interval.high)


def _each_alone(
    value: float,
    statistic: Callable[[Rows, Rows], float],
    first: tuple[Family, Rows],
    second: tuple[Family, Rows],
    resampling: Resampling,
) -> Bounds:
    """One architecture's runs drawn and then the other's; distances from the value add as those of independent errors do.

    Source: Zou and Donner 2008 (doi:10.1002/sim.3095).
    """
    (family_1, rows_1), (family_2, rows_2) = first, second
    try:
        alone = (
            resampling.interval(lambda own: statistic(own, rows_2), rows_1, strata=family_1.strata()[rows_1]),
            resampling.interval(lambda others: statistic(rows_1, others), rows_2, strata=family_2.strata()[rows_2]),
        )
    except ArchlabError:
        return None, None
    return (
        value - float(np.hypot(*(value - interval.low for interval in alone))),
        value + float(np.hypot(*(interval.high - value for interval in alone))),
    )


def _multiplier(first: Family, second: Family, budget: float, resampling: Resampling) -> Estimate | None:
    """The first's runs of the budget and all of the second's, which its law takes, are drawn by themselves."""
    mine = np.flatnonzero(first.budget == budget)
    everyone = np.arange(len(second.C))

    def log_multiplier(own: Rows, rest: Rows) -> float:
        fit = fit_isoflop(second.C[rest], second.N[rest], second.loss[rest], D=second.D[rest])
        law = fit_power_law([m.flops for m in fit.minima], [m.loss for m in fit.minima])
        return float(np.log(law.inverse(first.minimum(own).loss) / np.median(first.C[own])))

    try:
        value = log_multiplier(mine, everyone)
    except ArchlabError:
        return None
    bounds = _each_alone(value, log_multiplier, (first, mine), (second, everyone), resampling)
    low, high = (None if bound is None else float(np.exp(bound)) for bound in bounds)
    return Estimate(float(np.exp(value)), low, high)


def state_law(laws: Sequence[Laws], resampling: Resampling) -> StateFit | str:
    """Compute-optimal perplexity over the state carried at the optimum, over all architectures; or why there is none."""
    points = [(*point, one.family.label) for one in laws for point in one.state_points()]
    state, perplexity, group = zip(*points, strict=True) if points else ((), (), ())
    try:
        return fit_state(perplexity, state, group, resampling)
    except ArchlabError as error:
        return str(error)
