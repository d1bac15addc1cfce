"""Fits of scaling laws to plain arrays or the columns of a data frame; nothing here trains or knows an architecture.

Symbols are those of the field: ``C`` training FLOPs, ``N`` parameters, ``D`` tokens, ``M = D / N``. Columns are keyword-only.
"""

from archlab.scaling.fits.envelope import EnvelopeFit, fit_envelope
from archlab.scaling.fits.isoflop import IsoFlopFit, IsoFlopMinimum, fit_isoflop, isoflop_minimum
from archlab.scaling.fits.over_training import OverTrainingFit, fit_over_training
from archlab.scaling.fits.parametric import ParametricFit, fit_parametric
from archlab.scaling.fits.power_law import Frontier, PowerLaw, fit_power_law
from archlab.scaling.fits.resampling import Interval, Resampling, bootstrap, jackknife
from archlab.scaling.fits.state import StateFit, fit_state

__all__ = [
    "EnvelopeFit", "Frontier", "Interval", "IsoFlopFit", "IsoFlopMinimum", "OverTrainingFit", "ParametricFit", "PowerLaw",
    "Resampling", "StateFit", "bootstrap", "fit_envelope", "fit_isoflop", "fit_over_training", "fit_parametric",
    "fit_power_law", "fit_state", "isoflop_minimum", "jackknife",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
