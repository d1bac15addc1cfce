"""Readings of what a search has evaluated: which choices matter, what the best have in common, the pattern at other depths."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from archlab.architectures import Architecture
from archlab.architectures.parser import LayerDefaults
from archlab.errors import ArchlabError
from archlab.layers import Composite, LayerConfig, layer
from archlab.searching.space import canonical

_TOP = 0.25
"""Fraction of the evaluated architectures whose majority is the consensus; three at least."""


@dataclass(frozen=True)
class Importance:
    """The part of the variance of a score that a choice explains."""

    choice: str
    explained: float
    """Fraction, corrected for the number of alternatives: 0 on average where the choice does not matter."""
    evaluated: int
    """Architectures that had the choice."""
    best: str
    """The alternative with the highest mean."""


def importance(features: Sequence[Mapping[str, str]], scores: Sequence[float]) -> tuple[Importance, ...]:
    """The importance of each choice for a score, most important first; choices that were always the same are left out.

    The fraction is epsilon squared of a one-way analysis of variance, each choice for itself: where choices go together, as
    the alternatives that a good parent hands on, each gets what they explain together.
    """
    found = []
    for name in dict.fromkeys(name for one in features for name in one):
        groups: dict[str, list[float]] = {}
        for one, score in zip(features, scores, strict=True):
            if name in one:
                groups.setdefault(one[name], []).append(score)
        values = np.concatenate([*groups.values()])
        total, within_freedom = float(((values - values.mean()) ** 2).sum()), len(values) - len(groups)
        if len(groups) < 2 or within_freedom < 1 or not total:
            continue
        within = sum(float(((np.array(group) - np.mean(group)) ** 2).sum()) for group in groups.values())
        explained = 1 - (within / within_freedom) / (total / (len(values) - 1))
        best = max(groups, key=lambda one: float(np.mean(groups[one])))
        found.append(Importance(name, max(explained, 0.0), len(values), best))
    return tuple(sorted(found, key=lambda one: -one.explained))


def features(architectures: Sequence[Architecture], choices: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The choices of each architecture, and the number of its layers of each name."""
    counts = [Counter(config.name for config in one.layers) for one in architectures]
    names = dict.fromkeys(name for one in counts for name in one)
    return [
        dict(own) | {f"number of {name}": str(count[name]) for name in names} for own, count in zip(choices, counts, strict=True)
    ]


def as_typed(architecture: Architecture, layer_defaults: LayerDefaults) -> Architecture:
    """The architecture without the knobs that a protocol sets by itself: as it is typed for it, and for any other width."""

    def typed(config: LayerConfig) -> LayerConfig:
        if isinstance(config, Composite):
            return replace(config, layers=tuple(map(typed, config.layers)))
        knobs = config.knobs()
        own = {knob for knob, value in layer_defaults.get(config.name, {}).items() if knobs[knob] == value}
        return layer(config.name, **{knob: value for knob, value in knobs.items() if knob not in own}) if own else config

    return Architecture(tuple(map(typed, architecture.layers)))


def consensus(best_first: Sequence[Architecture]) -> Architecture:
    """The majority, layer by layer, of the best quarter of architectures, of those among them with the most common depth.

    Where layers are equally frequent, the one of the better architecture counts.
    """
    top = best_first[: max(3, round(_TOP * len(best_first)))]
    depths = Counter(len(one.layers) for one in top)
    depth = max(depths, key=lambda one: depths[one])
    alike = [one.layers for one in top if len(one.layers) == depth]
    return canonical(Architecture(tuple(Counter(column).most_common(1)[0][0] for column in zip(*alike, strict=True))))


def stretch(architecture: Architecture, layers: int) -> Architecture:
    """The pattern drawn out to a number of layers: each layer stands where it stood in proportion, so runs get longer.

    Raises:
        ArchlabError: there are fewer layers than the pattern has.
    """
    n = _fits(architecture, layers)
    return canonical(Architecture(tuple(architecture.layers[index * n // layers] for index in range(layers))))


def stack(architecture: Architecture, layers: int) -> Architecture:
    """The pattern repeated up to a number of layers, of which the last repetition may be cut.

    Raises:
        ArchlabError: there are fewer layers than the pattern has.
    """
    n = _fits(architecture, layers)
    return canonical(Architecture(tuple(architecture.layers[index % n] for index in range(layers))))


def _fits(architecture: Architecture, layers: int) -> int:
    n = len(architecture.layers)
    if layers < n:
        raise ArchlabError(f"layers={layers}: the pattern has {n}: give as many or more")
    return n
