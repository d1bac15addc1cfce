"""Logarithmic axes with round numbers at both ends."""

import math
from collections.abc import Iterable
from typing import Any

import altair as alt

MAX_TICKS = 6
"""Labels of a logarithmic axis stand at least this fraction of its length apart, as 1 over the number."""


def log_axis(values: Iterable[float], label: str = "format(datum.value, '~s')", **axis: Any) -> dict[str, Any]:
    """Scale and axis of a logarithmic channel that holds the values, labelled at both ends; ``label`` is a Vega expression."""
    values = list(values)
    ticks = log_ticks(min(values), max(values))
    return {
        "scale": alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False, padding=8),
        "axis": alt.Axis(labelExpr=label, values=ticks, labelOverlap=False, **axis),
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis, the first no more than ``low``, the last no less than ``high`` (to 1 %)."""
    tens = [10.0**power for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)]
    if high < 3 * low:
        width = max(high - low, low / 10) / 2
        step = max(digit * ten for digit in (1, 2, 5) for ten in (tens[0] / 10, *tens) if digit * ten <= width)
        least = math.floor(1.01 * low / step)
        numbers = [step * i for i in range(least, max(math.ceil(0.99 * high / step), least + 1) + 1)]
        if low == high:  # which stands in the middle
            numbers = [step * (round(low / step) + i) for i in (-1, 0, 1)]
    else:
        some = [digit * ten for ten in tens for digit in (1, 1.5, 2, 3, 5, 7)]
        first, last = max(x for x in some if x <= 1.01 * low), min(x for x in some if x >= 0.99 * high)
        numbers = [x for x in some if first <= x <= last and (last < 300 * first or x in {first, last, *tens})]
    apart = (numbers[-1] / numbers[0]) ** (1 / MAX_TICKS)
    ticks = [numbers[0], numbers[-1]]
    for x in sorted(numbers[1:-1], key=lambda x: x not in tens):
        if all(max(x / tick, tick / x) >= apart for tick in ticks):
            ticks.append(x)
    return sorted(float(f"{x:.3g}") for x in ticks)
