"""How many of the mixing layers are best attention: from stripes that differ in their share of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import Resampling
from archlab.scaling.fits.columns import Floats
from archlab.scaling.laws import Estimate
from archlab.scaling.study import Family, Minima


@dataclass(frozen=True)
class BestShare:
    """The share of attention of least loss at one budget, every architecture at its own best size."""

    budget: float
    share: Estimate
    """The minimum of the parabola through the best share and its two neighbours; the best share if it is at an end."""
    bracketed: bool
    """Whether a smaller and a larger share were trained than the best."""
    losses: dict[str, float]
    """Least loss by architecture, of those that have a minimum at the budget."""


@dataclass(frozen=True)
class Sweep:
    """Architectures of the same layers that differ in their share of attention layers."""

    layers: tuple[str, ...]
    """What stands beside attention."""
    shares: dict[str, float]
    """Attention layers over all layers that mix the sequence, by architecture, ascending."""
    best: tuple[BestShare, ...]
    """At every budget at which three shares or more have a minimum."""


def sweeps(families: Iterable[Family], resampling: Resampling) -> tuple[Sweep, ...]:
    """All sweeps of a study of at least three shares; pure attention belongs to each whose other layers hold its own."""
    known = {family.label: (family, *described) for family in families if (described := _describe(family)) is not None}
    found = []
    for layers in dict.fromkeys(others for _, share, others in known.values() if share < 1):
        members = [(share, label) for label, (_, share, others) in known.items() if _belongs(share, others, layers)]
        shares = {label: share for share, label in sorted(members)}
        best = _best([known[label][0] for label in shares], np.array(list(shares.values())), resampling)
        if best:
            found.append(Sweep(tuple(sorted(layers)), shares, best))
    return tuple(found)


def _describe(family: Family) -> tuple[float, frozenset[str]] | None:
    """Share of attention, and the other layers; None where the sizes differ in them or nothing mixes the sequence."""
    found = set()
    for architecture in {point.run.architecture for point in family.points}:
        others = [layer for layer in architecture.layers if not layer.is_attention]
        attention = len(architecture.layers) - len(others)
        mixing = attention + sum(layer.kind == "sequence" for layer in others)
        found.add((attention / mixing, frozenset(layer.name for layer in others)) if mixing else None)
    return found.pop() if len(found) == 1 else None


def _belongs(share: float, others: frozenset[str], layers: frozenset[str]) -> bool:
    return others <= layers if share == 1 else others == layers


def _best(families: list[Family], shares: Floats, resampling: Resampling) -> tuple[BestShare, ...]:
    found = []
    for budget in sorted({budget for family in families for budget in family.minima}):
        there = [place for place, family in enumerate(families) if budget in family.minima]
        known, some = shares[there], [families[place] for place in there]
        if len(np.unique(known)) < 3:
            continue
        share = estimate(partial(_optimum, shares=known, budget=budget), some, resampling)
        bracketed = bool(known.min() < share.value < known.max())
        if not bracketed:
            share = Estimate(share.value, None, None)  # where the sweep ends says nothing of where the best is
        losses = {family.label: family.minima[budget].loss for family in some}
        found.append(BestShare(budget, share, bracketed, losses))
    return tuple(found)


def _optimum(minima: list[Minima], shares: Floats, budget: float) -> float:
    return _vertex(shares, np.array([found[budget].loss for found in minima]))


def _vertex(shares: Floats, losses: Floats) -> float:
    """Of shares that come several times the least loss counts."""
    at = np.unique(shares)
    least = np.array([losses[shares == share].min() for share in at])
    best = int(least.argmin())
    if best in (0, len(at) - 1):
        return float(at[best])
    a, b, _ = np.polyfit(at[best - 1 : best + 2] - at[best], least[best - 1 : best + 2], 2)
    return float(at[best] - b / (2 * a)) if a > 0 else float(at[best])
