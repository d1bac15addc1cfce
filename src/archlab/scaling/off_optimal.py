"""What it costs to train another size than the best: off the optimum of a budget, and on many tokens a parameter."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.scaling.fits import OverTrainingFit, Resampling, fit_over_training
from archlab.scaling.fits.columns import Floats
from archlab.scaling.laws import Estimate, Laws
from archlab.scaling.study import Family

SHARES = (0.5, 0.25)
"""Sizes, relative to the best one, at which the gap is told."""


@dataclass(frozen=True)
class Gap:
    """Loss above the least one of a budget, for a model smaller than the best (arXiv 2403.17844, section 5)."""

    label: str
    budget: float
    share: float
    """Of the best size."""
    loss: Estimate
    """Above the minimum of the parabola, in nats a token."""


@dataclass(frozen=True)
class OverTraining:
    """The over-training law of an architecture, and how well it describes its runs."""

    fit: OverTrainingFit
    error: float
    """Mean absolute error of the losses, relative."""


def off_optimal_gaps(laws: Laws, resampling: Resampling) -> list[Gap]:
    """Of every budget with a minimum, at those shares of its size that are not below the smallest size of its runs."""
    family, found = laws.family, []
    for minimum in laws.minima:
        rows = np.flatnonzero(family.budget == family.budget[np.abs(np.log(family.C / minimum.flops)).argmin()])
        shares = np.array([share for share in SHARES if share * minimum.size >= family.N[rows].min()])
        if not len(shares):
            continue
        values = _gaps(family, rows, shares)
        low = high = np.full(len(shares), np.nan)
        with suppress(ArchlabError):  # then there are no intervals
            interval = resampling.interval(partial(_gaps, family, shares=shares), rows, strata=family.strata()[rows])
            low, high = interval.low, interval.high
        for share, value, *bounds in zip(shares.tolist(), values.tolist(), low.tolist(), high.tolist(), strict=True):
            known = [bound if np.isfinite(bound) else None for bound in bounds]
            found.append(Gap(family.label, float(family.budget[rows[0]]), share, Estimate(value, known[0], known[1])))
    return found


def _gaps(family: Family, rows: NDArray[np.intp], shares: Floats) -> Floats:
    """At these shares of the rows' own best size."""
    found = family.minimum(rows)
    return found(shares * found.size) - found.loss


def over_training(family: Family) -> OverTraining | str:
    """The law fitted to an architecture's runs, or why there is none."""
    multiplier = family.D / family.N
    try:
        fit = fit_over_training(family.C, multiplier, family.loss)
    except ArchlabError as error:
        return str(error)
    return OverTraining(fit, float(np.mean(np.abs(fit(family.C, multiplier) / family.loss - 1))))
