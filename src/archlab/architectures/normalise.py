"""Architectures at equal state and equal parameters: solves for the knobs that make them so."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from archlab.architectures.spec import Architecture
from archlab.architectures.spec import architecture as read
from archlab.errors import ArchlabError
from archlab.fields import between, checked
from archlab.layers import Composite, LayerConfig
from archlab.layers.knobs import LARGEST

Size = Annotated[int, between(1, LARGEST)]
_MOST_SUMS = 10_000
"""Sums of states that are kept while layers are chosen one after the other."""
_ALL_TRIED = 128
"""Values of a knob that are all tried, or up to the width if that is more."""
_NEIGHBOURS = 64
"""Values of a knob on either side of a share that are tried beyond these."""
_LARGEST_FACTOR = 2.0**16
"""Inner widths are sought up to this multiple, and down to its inverse."""


@dataclass(frozen=True)
class Normalised:
    """An architecture at a given state, and what was done for it."""

    architecture: Architecture
    state: int
    """Matrix state by :meth:`Architecture.matrix_state`."""
    params: int
    """Parameters of the layers by :meth:`Architecture.layer_params`."""
    changes: tuple[tuple[str, str], ...]
    """Layers that have other knobs now: before and after."""
    unreached: tuple[str, ...]
    """The targets that could not be reached and why, a sentence each."""


@checked
def normalise(
    architecture: str | Architecture,
    *,
    state: Size | None = None,
    params: Size | None = None,
    dim: Size = 128,
    length: Size = 128,
) -> Normalised:
    """The architecture with ``state`` scalars of matrix state in all, and ``params`` parameters, as near as its knobs allow.

    Every sequence mixer with a matrix state has an equal share. One whose state grows with the length (attention, Hyena)
    stays as it is, and its share is not given to others, so these are what they would be without it. One whose constant
    state no knob sets stays as it is too, and the others make up for the difference. Equal layers stay equal. A layer goes
    no further than half or twice its share if its knob allows that; of the choices whose total is nearest, the one with
    the most even shares is taken. The parameters are those of the layers, without embeddings and norms; one factor for
    the inner widths of all channel mixers sets them.

    Args:
        architecture: a catalogue name, a spec or a value, with any knobs.
        state: total matrix state, in scalars; by default it is as it comes.
        params: parameters of the layers; by default they are as they come.
        dim: width.
        length: positions of a sequence, which bound a window.

    Raises:
        ArchlabError: neither is given, a number is below 1 or beyond :data:`archlab.layers.knobs.LARGEST`, a layer does not
            fit the width, or its state is not known or no number.
    """
    from archlab.layers.external.check import check_accounting

    if state is None and params is None:
        raise ArchlabError("give a state, a number of parameters, or both")
    value = read(architecture) if isinstance(architecture, str) else architecture
    value.validate(dim)
    check_accounting(value.layers, dim, length)
    chosen, unreached = ({}, []) if state is None else _choose_states(value.layers, state, dim, length)
    layers = tuple(_replaced(x, chosen) for x in value.layers)
    if params is not None:
        layers, resized = _sized(layers, params, dim, length), layers
        reached = _num_params(layers, dim, length)
        if abs(reached - params) > params / 100:
            why = "are the nearest that inner widths give" if layers != resized else "are left, no inner width can be set"
            unreached.append(f"{params:,} parameters: {reached:,} {why}")
    found = Architecture(layers)
    pairs = zip(_leaves(value.layers), _leaves(layers), strict=True)
    changes = dict.fromkeys((str(old), str(new)) for (old, _), (new, _) in pairs if old != new)
    return Normalised(
        found if changes else value,
        sum(copies * _state(leaf, dim, length) for leaf, copies in _leaves(found.layers)),
        found.layer_params(length=length, dim=dim),
        tuple(changes),
        tuple(unreached),
    )


def _choose_states(
    layers: tuple[LayerConfig, ...], state: int, dim: int, length: int
) -> tuple[dict[LayerConfig, LayerConfig], list[str]]:
    """New layers for those with a knob for the state, and what stands in the way of the target."""
    times: dict[LayerConfig, int] = {}
    for leaf, copies in _leaves(layers):
        if leaf.kind == "sequence" and _state(leaf, dim, length) > 0:
            times[leaf] = times.get(leaf, 0) + copies
    if not times:
        return {}, [f"a state of {state:,}: no layer has one"]
    goal, num = state * 1.0, sum(times.values())
    unreached: list[str] = []
    for leaf in [leaf for leaf in times if not leaf.state_knob]:
        copies, own = times.pop(leaf), _state(leaf, dim, length)
        if _state(leaf, dim, 2 * length) > own:
            goal -= copies * state / num
            unreached.append(f"{leaf}: its state grows with the length ({own:,} at {length:,}), so it stays as it is")
        else:
            goal -= copies * own
            unreached.append(f"{leaf}: no knob sets its state of {own:,}, so it stays as it is")
    if not times:
        return {}, unreached
    share = max(goal, 1.0) / sum(times.values())
    options = {leaf: _options(leaf, share, dim, length) for leaf in times}
    chosen = _nearest_sum(times, options, goal, share)
    total = sum(times[leaf] * _state(new, dim, length) for leaf, new in chosen.items())
    if total != round(goal):
        names = " and ".join(f"{leaf.state_knob} of {leaf.name}" for leaf in times)
        unreached.append(f"a state of {max(round(goal), 0):,} by {names}: {total:,} is the nearest that whole numbers give")
    return chosen, unreached


def _state(config: LayerConfig, dim: int, length: int) -> int:
    state = config.matrix_state(dim, length)
    if state is None:
        raise ArchlabError(f"{config}: its state is not known, so it cannot be made equal: give it a config with a state_size")
    return state


def _options(leaf: LayerConfig, share: float, dim: int, length: int) -> dict[int, LayerConfig]:
    """The layer with the values of its knob whose states are around a share, by state; of several values with one state
    the nearest to the present one."""
    now = getattr(leaf, leaf.state_knob)
    found: dict[int, LayerConfig] = {}

    def state_at(value: int) -> int | None:
        """The state with a value, which is an option from then on; None if the value does not fit."""
        try:
            option = replace(leaf, **{leaf.state_knob: value})
            option.validate(dim)
            own = _state(option, dim, length)
        except ArchlabError:
            return None
        if own > 0 and (own not in found or abs(value - now) < abs(getattr(found[own], leaf.state_knob) - now)):
            found[own] = option
        return own

    state_at(now)
    tried = max(dim, _ALL_TRIED)
    step = min((value for value in range(1, tried + 1) if state_at(value) is not None), default=now)
    # Beyond the width a knob has no more divisors to offer: what fits there are multiples of the least that fits, and the
    # state grows with them.
    beyond = range((tried // step + 1) * step, LARGEST + 1, step)
    reached = bisect_left(beyond, True, key=lambda value: (own := state_at(value)) is None or own >= share)
    for value in beyond[max(0, reached - _NEIGHBOURS) : reached + _NEIGHBOURS]:
        state_at(value)
    near = {own: option for own, option in found.items() if share / 2 <= own <= 2 * share}
    nearest = min(found, key=lambda own: abs(math.log(own / share)))
    return near or {nearest: found[nearest]}


def _nearest_sum(
    times: Mapping[LayerConfig, int], options: Mapping[LayerConfig, Mapping[int, LayerConfig]], goal: float, share: float
) -> dict[LayerConfig, LayerConfig]:
    """One option for each layer, such that the states, times the layer's copies, add up to the goal as nearly as they can."""
    sums: dict[int, tuple[float, tuple[LayerConfig, ...]]] = {0: (0.0, ())}
    for leaf, copies in times.items():
        longer: dict[int, tuple[float, tuple[LayerConfig, ...]]] = {}
        for total, (unevenness, picked) in sums.items():
            for own, option in options[leaf].items():
                candidate = (unevenness + copies * math.log(own / share) ** 2, (*picked, option))
                at = total + copies * own
                if at not in longer or candidate[0] < longer[at][0]:
                    longer[at] = candidate
        sums = dict(sorted(longer.items(), key=lambda item: item[1][0])[:_MOST_SUMS])
    best = min(sums, key=lambda total: (abs(total - goal), sums[total][0]))
    return dict(zip(times, sums[best][1], strict=True))


def _sized(layers: tuple[LayerConfig, ...], params: int, dim: int, length: int) -> tuple[LayerConfig, ...]:
    """The layers with the factor for all inner widths that brings them nearest to the parameters."""

    def at(factor: float) -> tuple[LayerConfig, ...]:
        return tuple(x.resized(dim, factor) for x in layers)

    low, high = 1 / _LARGEST_FACTOR, _LARGEST_FACTOR
    for _ in range(64):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _num_params(at(middle), dim, length) <= params else (low, middle)
    return min((at(low), at(high)), key=lambda found: abs(_num_params(found, dim, length) - params))


def _num_params(layers: Iterable[LayerConfig], dim: int, length: int) -> int:
    return sum(x.num_params(dim, length) for x in layers)


def _leaves(layers: Iterable[LayerConfig], copies: int = 1) -> Iterator[tuple[LayerConfig, int]]:
    """The layers that are made of no others, and how many there are of each."""
    for x in layers:
        if isinstance(x, Composite):
            yield from _leaves(x.layers, copies * x.copies)
        else:
            yield x, copies


def _replaced(config: LayerConfig, chosen: Mapping[LayerConfig, LayerConfig]) -> LayerConfig:
    if isinstance(config, Composite):
        return replace(config, layers=tuple(_replaced(x, chosen) for x in config.layers))
    return chosen.get(config, config)
