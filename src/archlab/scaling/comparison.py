"""Which of two architectures is better for the same compute, and how much compute that is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.scaling.fits import Resampling, StateFit, fit_isoflop, fit_power_law, fit_state, isoflop_minimum
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
    """Runs that both have: same budget, place among the sizes, and seed; resampled together."""


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
        interval = _bounds(first, second, rows_1[here], rows_2[here], resampling)
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


def _pairs(first: Family, second: Family) -> tuple[Rows, Rows]:
    """Rows of both that stand for the same budget, place and seed."""

    def names(family: Family) -> dict[tuple[float, int, int], int]:
        keys = zip(family.budget.tolist(), family.place.tolist(), family.seed.tolist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    ours, theirs = names(first), names(second)
    both = [key for key in ours if key in theirs]
    return np.array([ours[key] for key in both], dtype=np.intp), np.array([theirs[key] for key in both], dtype=np.intp)


def _minimum(family: Family, rows: Rows) -> float:
    return isoflop_minimum(float(np.median(family.C[rows])), family.N[rows], family.D[rows], family.loss[rows]).loss


def _difference(first: Family, second: Family, rows_1: Rows, rows_2: Rows) -> float:
    return _minimum(second, rows_2) - _minimum(first, rows_1)


def _bounds(
    first: Family, second: Family, rows_1: Rows, rows_2: Rows, resampling: Resampling
) -> tuple[float | None, float | None]:
    """Of the difference: the pairs of the budget drawn together."""
    try:
        interval = resampling.interval(
            lambda a, b: _difference(first, second, a, b), rows_1, rows_2, strata=first.strata()[rows_1]
        )
    except ArchlabError:
        return None, None
    return float(interval.low), float(interval.high)


def _multiplier(first: Family, second: Family, budget: float, resampling: Resampling) -> Estimate | None:
    """Both architectures drawn by themselves, for the law takes all of the second's runs."""
    mine = np.flatnonzero(first.budget == budget)
    everyone = np.arange(len(second.C))

    def log_multiplier(own: Rows, rest: Rows) -> float:
        fit = fit_isoflop(second.C[rest], second.N[rest], second.loss[rest], D=second.D[rest])
        law = fit_power_law([m.flops for m in fit.minima], [m.loss for m in fit.minima])
        return float(np.log(law.inverse(_minimum(first, own)) / np.median(first.C[own])))

    try:
        value = log_multiplier(mine, everyone)
    except ArchlabError:
        return None
    # one vector of rows of both, told apart by their sign, so that one bootstrap draws each among its own
    rows = np.concatenate([-1 - mine, everyone])
    strata = np.concatenate([-1 - first.strata()[mine], second.strata()])
    try:
        interval = resampling.interval(
            lambda drawn: log_multiplier(-1 - drawn[drawn < 0], drawn[drawn >= 0]), rows, strata=strata
        )
    except ArchlabError:
        return Estimate(float(np.exp(value)), None, None)
    return Estimate(float(np.exp(value)), float(np.exp(interval.low)), float(np.exp(interval.high)))


def state_law(laws: Sequence[Laws], resampling: Resampling) -> StateFit | str:
    """Compute-optimal perplexity over the state carried at the optimum, over all architectures; or why there is none."""
    points = [(*point, one.family.label) for one in laws for point in one.state_points()]
    state, perplexity, group = zip(*points, strict=True) if points else ((), (), ())
    try:
        return fit_state(perplexity, state, group, resampling)
    except ArchlabError as error:
        return str(error)
