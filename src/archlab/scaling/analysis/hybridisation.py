"""The best fraction of attention among the mixing layers, from stripes that differ in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import Resampling
from archlab.scaling.fits.columns import Floats
from archlab.scaling.laws import Estimate
from archlab.scaling.study import Minima, RunTable


@dataclass(frozen=True)
class BestFraction:
    """The fraction of attention of least loss at one budget, every architecture at its own best size."""

    budget: float
    fraction: Estimate
    """The minimum of the parabola through the best fraction and its two neighbours; the best fraction if it is at an end."""
    bracketed: bool
    """Whether a smaller and a larger fraction than the best were trained."""
    losses: dict[str, float]
    """Least loss by architecture, of those that have a minimum at the budget."""


@dataclass(frozen=True)
class Sweep:
    """Architectures of the same layers that differ in their fraction of attention layers."""

    layers: tuple[str, ...]
    """The layers beside attention."""
    fractions: dict[str, float]
    """Attention layers over all layers that mix the sequence, by architecture, ascending."""
    best: tuple[BestFraction, ...]
    """At every budget at which three fractions or more have a minimum."""


def sweeps(tables: Iterable[RunTable], resampling: Resampling) -> tuple[Sweep, ...]:
    """Find the sweeps of at least three fractions; pure attention belongs to each whose other layers include its own."""
    known = [(table, *described) for table in tables if (described := _describe(table)) is not None]
    sweeps = []
    for layers in dict.fromkeys(others for _, fraction, others in known if fraction < 1):
        members = [one for one in known if (one[2] <= layers if one[1] == 1 else one[2] == layers)]
        members.sort(key=lambda one: (one[1], one[0].label))
        fractions = {table.label: fraction for table, fraction, _ in members}
        best = _best([table for table, _, _ in members], np.array(list(fractions.values())), resampling)
        if best:
            sweeps.append(Sweep(tuple(sorted(layers)), fractions, best))
    return tuple(sweeps)


def _describe(table: RunTable) -> tuple[float, frozenset[str]] | None:
    """Return fraction of attention and the other layers; None where the sizes differ in them or nothing mixes the sequence."""
    descriptions = set()
    for architecture in {model.architecture for model in table.models}:
        if architecture is None:
            return None
        others = [layer for layer in architecture.layers if not layer.is_attention]
        attention = len(architecture.layers) - len(others)
        mixing = attention + sum(layer.kind == "sequence" for layer in others)
        descriptions.add((attention / mixing, frozenset(layer.name for layer in others)) if mixing else None)
    return descriptions.pop() if len(descriptions) == 1 else None


def _best(tables: list[RunTable], fractions: Floats, resampling: Resampling) -> tuple[BestFraction, ...]:
    best = []
    for budget in sorted({budget for table in tables for budget in table.minima}):
        indices = [index for index, table in enumerate(tables) if budget in table.minima]
        known, some = fractions[indices], [tables[index] for index in indices]
        if len(np.unique(known)) < 3:
            continue
        fraction = estimate(partial(_optimum, fractions=known, budget=budget), some, resampling)
        bracketed = bool(known.min() < fraction.value < known.max())
        if not bracketed:
            fraction = Estimate(fraction.value, None, None)  # the end of the sweep does not tell where the best is
        losses = {table.label: table.minima[budget].loss for table in some}
        best.append(BestFraction(budget, fraction, bracketed, losses))
    return tuple(best)


def _optimum(minima: list[Minima], fractions: Floats, budget: float) -> float:
    """Return the fraction of least loss; of equal fractions the least loss counts."""
    at, losses = np.unique(fractions), np.array([one[budget].loss for one in minima])
    least = np.array([losses[fractions == fraction].min() for fraction in at])
    best = int(least.argmin())
    if best in (0, len(at) - 1):
        return float(at[best])
    a, b, _ = np.polyfit(at[best - 1 : best + 2] - at[best], least[best - 1 : best + 2], 2)
    return float(at[best] - b / (2 * a)) if a > 0 else float(at[best])
