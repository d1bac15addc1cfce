"""Parts that charts share: highlighting of one architecture, labels at line ends, text for who cannot see."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import altair as alt

MAX_LABELS = 8
"""Lines up to which each has its label at its end; of more, only the highlighted one, for which they make room."""
_FADED = 0.1
_IN_TEXT = 10
"""Architectures that the text of a chart names; the rest is in the tables."""


def fading(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart whose marks of other architectures fade when the page sets its parameter ``chosen`` to a label.

    Layers that draw architectures have them in a channel; those that use ``chosen`` themselves stay as they are.
    """
    found = False
    for layer in _layers(spec):
        encoding = layer.get("encoding", {})
        if not any(isinstance(channel, Mapping) and channel.get("field") == "architecture" for channel in encoding.values()):
            continue
        found = True
        given = encoding.get("opacity", {"value": layer["mark"].get("opacity", 1)})
        conditions = given.get("condition", [])
        conditions = conditions if isinstance(conditions, list) else [conditions]
        if not any("chosen" in str(condition.get("test")) for condition in conditions):
            faded = {"test": "chosen !== null && datum.architecture !== chosen", "value": _FADED}
            encoding["opacity"] = {"condition": [faded, *conditions], "value": given["value"]}
    return {**spec, "params": [{"name": "chosen", "value": None}]} if found else spec


def _layers(part: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if "mark" in part:
        yield part
    for inner in (*part.get("layer", ()), *([part["spec"]] if "spec" in part else ())):
        yield from _layers(inner)


def shown_if(condition: str) -> Any:
    """Opacity of labels: the highlighted architecture's, and those of which a Vega expression holds while none is."""
    tests: Any = [{"test": f"chosen === datum.architecture || (chosen === null && {condition})", "value": 1}]
    return alt.OpacityValue(0, condition=tests)


def room_for_labels(labels: Sequence[str]) -> int:
    """Pixels beside the plot that the labels at line ends take; none where there are too many."""
    return 12 + min(6 * max(map(len, labels)), 100) if len(labels) <= MAX_LABELS else 0


def end_labels(base: alt.Chart, labels: Sequence[str], y: alt.Y) -> alt.Chart:
    """Labels right of the last points of lines, on rows with the field ``at``, see :func:`spread`."""
    room = room_for_labels(labels)
    place: dict[str, Any] = {"align": "left", "dx": 8, "limit": room} if room else {"align": "right", "dy": -9}
    drawn = base.mark_text(fontSize=10, baseline="middle", **place)
    found: alt.Chart = drawn.encode(y=y, text="architecture:N", opacity=shown_if("true" if room else "false"))
    return found


def spread(values: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """The values moved as little as puts them ``apart`` within bounds, for labels that must not overlap; order is kept. As they
    are where there is no room for all."""
    if (len(values) - 1) * apart > high - low:
        return list(values)
    order = sorted(range(len(values)), key=lambda i: -values[i])
    moved = list(values)
    ceiling = high
    for i in order:
        moved[i] = min(values[i], ceiling)
        ceiling = moved[i] - apart
    floor = low
    for i in reversed(order):
        moved[i] = max(moved[i], floor)
        floor = moved[i] + apart
    return moved


def listed(parts: Sequence[str]) -> str:
    """Text of a chart: its first parts, and how many the tables have beside."""
    more = f"; and {len(parts) - _IN_TEXT} more, in the tables" if len(parts) > _IN_TEXT else ""
    return "; ".join(islice(parts, _IN_TEXT)) + more + "."
