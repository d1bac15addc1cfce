"""A picture of an architecture as SVG: layers on the residual stream, what repeats drawn once, branches and experts inside."""

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from archlab.architectures import Architecture
from archlab.files import check_place, write_whole
from archlab.format import human
from archlab.layers import Composite, LayerConfig
from archlab.reports.charts import COLOURS, FONT

ATTENTION, *OTHERS, CHANNEL = COLOURS
"""Colours: attention, the other sequence mixers in the order of their names, channel mixers."""
_WIDTH, _HEIGHT, _GAP = 230, 34, 14
"""Width and height of a layer's box, and the space below it, in pixels."""
_BRANCH = 165
"""Width of a branch."""
_STREAM, _LEFT = 22, 48
"""Where the residual stream and the boxes stand."""
_MANY = 8
"""Layers from which repetitions are drawn once."""
_SPECK = 11
"""Width of a layer in a strip."""


class _Group(NamedTuple):
    """Layers that are repeated one after the other."""

    layers: tuple[LayerConfig, ...]
    times: int


def layer_colours(architectures: Iterable[Architecture]) -> dict[str, str]:
    """A colour for each layer by name, the same in all drawings of these architectures."""
    found: dict[str, str] = {}
    names = {leaf.name: leaf for one in architectures for config in one.layers for leaf in _leaves(config)}
    mixers = sorted(name for name, leaf in names.items() if leaf.kind == "sequence" and not leaf.is_attention)
    for name, leaf in sorted(names.items()):
        found[name] = CHANNEL if leaf.kind == "channel" else ATTENTION
        if name in mixers:
            found[name] = OTHERS[mixers.index(name) % len(OTHERS)]
    return found


def draw_stack(
    architecture: Architecture, *, dim: int | None = None, length: int | None = None, colours: Mapping[str, str] | None = None
) -> str:
    """The picture, from the embedding down to the unembedding, as an SVG element whose lines take the colour of the text.

    With a width and a length every box says how many parameters and how much state its layer has there.
    """
    colours = colours or layer_colours([architecture])
    costs = (dim, length) if dim is not None and length is not None else None
    parts, y = [], 30
    groups = _grouped(architecture.layers) if len(architecture.layers) >= _MANY else [_Group(architecture.layers, 1)]
    right = _LEFT + max(map(_box_width, architecture.layers)) + (105 if costs else 0)
    for group in groups:
        top, edge = y, _LEFT + max(map(_box_width, group.layers)) + (105 if costs else 6)
        for config in group.layers:
            parts.append(_layer(config, y, colours, costs))
            y += _HEIGHT + _GAP
        if group.times > 1:
            bottom = y - _GAP
            bracket = f"M{edge} {top}h7V{bottom}h-7"
            parts.append(f'<path d="{bracket}" fill="none" stroke="currentColor"/>')
            parts.append(_text(edge + 13, (top + bottom) / 2 + 4, f"× {group.times}", size=14, bold=True))
    several = any(group.times > 1 for group in groups)
    width, height = right + (58 if several else 10), y + 22
    stream = (
        f'<path d="M{_STREAM} 18V{y}" stroke="currentColor" stroke-width="1.5"/>'
        f'<path d="M{_STREAM - 4} {y - 6}l4 7l4-7z" fill="currentColor"/>'
    )
    ends = _text(_STREAM - 12, 12, "embedding", soft=True) + _text(_STREAM - 12, y + 17, "norm, unembedding", soft=True)
    return _svg(width, height, str(architecture), ends + stream + "".join(parts))


def draw_strip(architecture: Architecture, colours: Mapping[str, str] | None = None) -> str:
    """The layers as a row of coloured boxes, sequence mixers high and channel mixers low: many architectures under each other."""
    colours = colours or layer_colours([architecture])
    boxes = []
    for index, config in enumerate(architecture.layers):
        leaves = list(_leaves(config))
        for number, leaf in enumerate(leaves):
            high = leaf.kind == "sequence"
            whole = 14 if high else 8
            tall = whole / len(leaves)
            y = 15 - whole + number * tall
            place = f'x="{index * (_SPECK + 2)}" y="{y:.3g}" width="{_SPECK}" height="{tall:.3g}"'
            boxes.append(f'<rect {place} rx="1" fill="{colours[leaf.name]}"/>')
    return _svg(len(architecture.layers) * (_SPECK + 2), 16, str(architecture), "".join(boxes))


def write_stack(architecture: Architecture, path: str | os.PathLike[str], *, dim: int, length: int) -> None:
    """Write the picture to a file, on white, whole or not at all.

    Raises:
        ArchlabError: nothing can be written there.
    """
    check_place(Path(path), "picture")
    picture = draw_stack(architecture, dim=dim, length=length)
    start = picture.index(">") + 1
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    write_whole(Path(path), picture[:start] + white + picture[start:] + "\n", "picture")


def _grouped(layers: Sequence[LayerConfig]) -> list[_Group]:
    """The layers with what repeats written once: at each place the repetition that covers most."""
    groups: list[_Group] = []
    at = 0
    while at < len(layers):
        best = _Group(tuple(layers[at : at + 1]), 1)
        for size in range(1, (len(layers) - at) // 2 + 1):
            unit, times = tuple(layers[at : at + size]), 1
            while tuple(layers[at + times * size : at + (times + 1) * size]) == unit:
                times += 1
            if times > 1 and times * size > best.times * len(best.layers):
                best = _Group(unit, times)
        groups.append(best)
        at += best.times * len(best.layers)
    merged: list[_Group] = []
    for group in groups:
        if group.times == 1 and merged and merged[-1].times == 1:
            merged[-1] = _Group(merged[-1].layers + group.layers, 1)
        else:
            merged.append(group)
    return merged


def _leaves(config: LayerConfig) -> Iterable[LayerConfig]:
    if isinstance(config, Composite):
        for part in config.layers:
            yield from _leaves(part)
    else:
        yield config


def _box_width(config: LayerConfig) -> int:
    leaves = len(list(_leaves(config)))
    return max(_WIDTH, leaves * _BRANCH + 22 * (leaves - 1))


def _layer(config: LayerConfig, y: float, colours: Mapping[str, str], costs: tuple[int, int] | None) -> str:
    """A layer's box with its way from the stream and back to it."""
    width = _box_width(config)
    middle = y + _HEIGHT / 2
    ways = (
        f'<path d="M{_STREAM} {y - 4}h14V{middle - 6}h{_LEFT - _STREAM - 14}" fill="none" stroke="currentColor" opacity=".55"/>'
        f'<path d="M{_LEFT} {middle + 7}H{_STREAM + 5}" fill="none" stroke="currentColor" opacity=".55"/>'
        f'<circle cx="{_STREAM}" cy="{middle + 7}" r="5.5" fill="none" stroke="currentColor"/>'
        f'<path d="M{_STREAM - 3.5} {middle + 7}h7" stroke="currentColor"/>'
    )
    beside = ""
    if costs:
        lines = [f"{human(config.num_params(*costs))} parameters"]
        if config.kind == "sequence":
            lines.append(f"{human(config.state_size(*costs))} state")
        first = middle + (4 if len(lines) == 1 else -2)
        beside = "".join(_text(_LEFT + width + 8, first + 13 * n, line, soft=True) for n, line in enumerate(lines))
    return ways + _box(config, _LEFT, y, width, colours) + beside


def _box(config: LayerConfig, x: float, y: float, width: float, colours: Mapping[str, str]) -> str:
    if isinstance(config, Composite) and len(config.layers) > 1:
        each = (width - 22 * (len(config.layers) - 1)) / len(config.layers)
        boxes = [_box(part, x + n * (each + 22), y, each, colours) for n, part in enumerate(config.layers)]
        sign = "⊕" if any(value is True for value in config.knobs().values()) else "+"
        signs = [_text(x + n * (each + 22) - 15, y + _HEIGHT / 2 + 5, sign, size=14) for n in range(1, len(config.layers))]
        return "".join([*boxes, *signs])
    if isinstance(config, Composite):
        (part,) = config.layers
        knobs = ", ".join(f"{name}={value}" for name, value in config.knobs().items())
        colour, edge = colours[next(iter(_leaves(part))).name], x + width - 6
        behind = (f"M{x + 3 * n + 3} {y - 3 * n + 3}v-3H{edge + 3 * n}V{y + _HEIGHT - 3 * n - 3}h-3" for n in (1, 2))
        others = f'<path d="{"".join(behind)}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
        return others + _box_of(f"{config.name} of {part}", knobs, x, y, width - 6, colour)
    name, _, knobs = str(config).partition("(")
    return _box_of(name, knobs.removesuffix(")"), x, y, width, colours[config.name])


def _box_of(name: str, knobs: str, x: float, y: float, width: float, colour: str) -> str:
    box = _rectangle(x, y, width, _HEIGHT, colour, ".20")
    fits = int((width - 16) / 6.2)
    if not knobs:
        return box + _text(x + 10, y + _HEIGHT / 2 + 4, _cut(name, fits), bold=True)
    return box + _text(x + 10, y + 15, _cut(name, fits), bold=True) + _text(x + 10, y + 28, _cut(knobs, fits), soft=True)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _rectangle(x: float, y: float, width: float, height: float, colour: str, opacity: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{colour}" fill-opacity="{opacity}" '
        f'stroke="{colour}" stroke-width="1.4"/>'
    )


def _text(x: float, y: float, text: str, *, size: float = 12, bold: bool = False, soft: bool = False) -> str:
    style = f'font-size="{11 if soft else size:g}"' + (' font-weight="600"' if bold else "") + (' opacity=".75"' if soft else "")
    return f'<text x="{x:g}" y="{y:g}" fill="currentColor" {style}>{escape(text)}</text>'


def _svg(width: float, height: float, title: str, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" font-family="{escape(FONT)}"><title>{escape(title)}</title>{content}</svg>'
    )
