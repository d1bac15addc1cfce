"""The cost of training another size than the best: off the optimum of a budget, and on many tokens a parameter."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from archlab.errors import ArchlabError
from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import OverTrainingFit, Resampling, fit_over_training
from archlab.scaling.laws import Estimate
from archlab.scaling.study import Minima, RunTable

FRACTIONS = (0.5, 0.25)
"""Sizes, as fractions of the best one, at which the excess loss is given."""


@dataclass(frozen=True)
class OffOptimal:
    """A model smaller than the best of its budget (arXiv 2403.17844, section 5)."""

    label: str
    budget: float
    fraction: float
    """Its size over the best one."""
    excess: Estimate
    """Its loss above the minimum of the parabola, in nats a token."""


@dataclass(frozen=True)
class OverTraining:
    """The over-training law of an architecture, and its error on the runs."""

    fit: OverTrainingFit
    error: float
    """Mean relative error of the losses."""


def off_optimal(runs: RunTable, resampling: Resampling) -> list[OffOptimal]:
    """Estimate the excess loss of smaller models at every budget with a minimum, down to its smallest trained size."""
    models = []
    for budget, minimum in runs.minima.items():
        smallest = runs.N[runs.budget == budget].min()
        for fraction in FRACTIONS:
            if fraction * minimum.size >= smallest:
                excess = estimate(partial(_excess, budget=budget, fraction=fraction), [runs], resampling)
                models.append(OffOptimal(runs.label, budget, fraction, excess))
    return models


def _excess(minima: list[Minima], budget: float, fraction: float) -> float:
    minimum = minima[0][budget]
    return float(minimum(fraction * minimum.size)) - minimum.loss


def over_training(runs: RunTable) -> OverTraining | str:
    """Fit the over-training law to an architecture's runs; or say why there is no fit."""
    multiplier = runs.D / runs.N
    try:
        fit = fit_over_training(C=runs.C, M=multiplier, loss=runs.loss)
    except ArchlabError as error:
        return str(error)
    return OverTraining(fit, float(np.mean(np.abs(fit(C=runs.C, M=multiplier) / runs.loss - 1))))
