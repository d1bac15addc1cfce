"""What it costs to train another size than the best: off the optimum of a budget, and on many tokens a parameter."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from archlab.errors import ArchlabError
from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import OverTrainingFit, Resampling, fit_over_training
from archlab.scaling.laws import Estimate
from archlab.scaling.study import Family, Minima

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


def off_optimal_gaps(family: Family, resampling: Resampling) -> list[Gap]:
    """Of every budget with a minimum, at those shares of its size that are not below the smallest size of its runs."""
    found = []
    for budget, minimum in family.minima.items():
        smallest = family.N[family.budget == budget].min()
        for share in SHARES:
            if share * minimum.size >= smallest:
                loss = estimate(partial(_gap, budget=budget, share=share), [family], resampling)
                found.append(Gap(family.label, budget, share, loss))
    return found


def _gap(minima: list[Minima], budget: float, share: float) -> float:
    """At that share of the best size."""
    minimum = minima[0][budget]
    return float(minimum(share * minimum.size)) - minimum.loss


def over_training(family: Family) -> OverTraining | str:
    """The law fitted to an architecture's runs, or why there is none."""
    multiplier = family.D / family.N
    try:
        fit = fit_over_training(C=family.C, M=multiplier, loss=family.loss)
    except ArchlabError as error:
        return str(error)
    return OverTraining(fit, float(np.mean(np.abs(fit(C=family.C, M=multiplier) / family.loss - 1))))
