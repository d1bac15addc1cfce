"""The report's charts, as Vega-Lite specifications: one small panel each, so that a page can arrange them.

Text and lines take the page's colour (``currentColor``): they are drawn as SVG and follow light and dark.
Scores are in percent. Every architecture keeps its colour and symbol in every panel.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import altair as alt
import numpy as np

from archlab.errors import unknown
from archlab.format import percent_interval, short_task, starred
from archlab.format import points as signed_points
from archlab.mad.comparison import difference
from archlab.mad.scores import ArchitectureScore, Scores, SettingScore, TaskScore
from archlab.reports.panels import Spec
from archlab.tasks import Task

Row = dict[str, Any]

_HEAD_WIDTH = 80
"""Pixels that the longest head of a heat map takes; where columns are narrower, heads are slanted."""
MAX_TICKS = 6
"""Labels of a logarithmic axis stand at least this fraction of its length apart, as 1 over the number."""
MAX_WITH_SEEDS = 12
"""Architectures up to which learning curves show every seed: the lines of more could not be told apart."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8A8F98")
"""Distinguishable with any colour vision: Okabe and Ito's palette without black and yellow, and a grey."""
SYMBOLS = {
    "circle": "M7 2a5 5 0 1 1 0 10a5 5 0 1 1 0-10z",
    "square": "M2.5 2.5h9v9h-9z",
    "triangle-up": "M7 2l5.5 9.5h-11z",
    "diamond": "M7 1l4.5 6l-4.5 6l-4.5-6z",
    "cross": "M5 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "triangle-down": "M7 12l5.5-9.5h-11z",
    "triangle-right": "M12 7l-9.5 5.5v-11z",
    "triangle-left": "M2 7l9.5 5.5v-11z",
}
"""Vega's symbols, each with the same shape as an SVG path on 14 x 14 for the page's legend."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])
"""Dashes of lines: the second seven architectures have the colours of the first seven with the second dash, and so on."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif'
"""The typeface of charts and page: Vega measures labels with it before the page draws them."""

CONFIG: Spec = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "tickColor": "currentColor", "domainColor": "currentColor",
        "gridColor": "currentColor", "gridOpacity": 0.12, "domainOpacity": 0.4, "tickOpacity": 0.4, "labelFontSize": 11,
        "titleFontSize": 11, "titleFontWeight": "normal", "labelLimit": 180, "titlePadding": 8,
    },
    "text": {"color": "currentColor"},
    "rule": {"color": "currentColor"},
}  # fmt: skip

_SCORE = alt.Y("score:Q", title="score (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))

Cost = Literal["num_params", "state_size", "flops"]
COSTS: dict[Cost, str] = {
    "num_params": "parameters",
    "state_size": "state: scalars carried from token to token",
    "flops": "FLOPs of one forward pass over one sequence",
}


class Style(NamedTuple):
    """Colour, symbol and dash of an architecture."""

    colour: str
    symbol: str
    dash: list[int]


def style(rank: int) -> Style:
    """The style of the architecture of this rank, from 0."""
    return Style(COLOURS[rank % len(COLOURS)], [*SYMBOLS][rank % len(SYMBOLS)], DASHES[rank // len(COLOURS) % len(DASHES)])


def heat_map(scores: Scores) -> Spec:
    """Every score, tasks across and architectures down."""
    heads = [*map(short_task, scores.tasks), scores.mean_name]
    rows = []
    for architecture in scores.architectures:
        cells: list[TaskScore | ArchitectureScore] = [*architecture.tasks, architecture]
        for head, found in zip(heads, cells, strict=True):
            score = None if found.score is None else 100 * found.score
            ink = "currentColor" if found.score is None else "#111" if found.score > 0.55 else "#fff"
            row = {"architecture": architecture.label, "task": head, "score": score, "text": starred(found)}
            rows.append(row | {"interval": percent_interval(found.interval), "ink": ink})
    narrow = f"width < {_HEAD_WIDTH * len(heads)}"
    heads_axis = alt.Axis(
        orient="top",
        labelAngle=alt.ExprRef(f"{narrow} ? -45 : 0"),
        labelAlign=alt.ExprRef(f"{narrow} ? 'left' : 'center'"),
        labelOverlap=False,
        domain=False,
        ticks=False,
    )
    base = chart(rows).encode(
        x=alt.X("task:N", sort=heads, title=None, axis=heads_axis),
        y=alt.Y("architecture:N", sort=_labels(scores), title=None, axis=alt.Axis(domain=False, ticks=False)),
        tooltip=["architecture:N", "task:N", alt.Tooltip("text:N", title="score (%)"), "interval:N"],
    )
    legend = alt.Legend(
        title="score (%)",
        titleFontWeight="normal",
        gradientLength=180,
        gradientThickness=8,
        orient="bottom",
        labelColor="currentColor",
        titleColor="currentColor",
    )
    colour = alt.Color("score:Q", scale=alt.Scale(scheme="cividis", domain=[0, 100]), legend=legend)
    texts = base.mark_text(fontSize=12).encode(text="text:N", color=alt.Color("ink:N", scale=None))
    tiles = base.mark_rect(cornerRadius=2).encode(color=colour)
    return spec((tiles + texts).resolve_scale(color="independent"), height=34 * len(scores.architectures))


def difference_panel(scores: Scores, rows: Mapping[str | None, list[Row]], task: str | None) -> Spec | None:
    """Distance of every other architecture from the leader, on one task or (None) in the MAD score, from the rows of all, whose
    axis it shares; refuses a task that is not scored."""
    if task not in rows:
        raise unknown("task", str(task), scores.tasks)
    if not rows[task]:
        return None
    colour, symbol, _ = encodings(_labels(scores))
    base = chart(rows[task]).encode(
        y=alt.Y("architecture:N", sort=_labels(scores), title=None, axis=alt.Axis(grid=False)),
        color=colour,
        tooltip=["architecture:N", "text:N", "interval:N"],
    )
    axis = alt.Axis(title="percentage points", tickCount=5)
    low = alt.X("low:Q", scale=alt.Scale(domain=list(difference_domain(rows))), axis=axis)
    interval = base.mark_rule(strokeWidth=2.5).encode(x=low, x2="high:Q")
    marks = points(base, size=60).encode(x="mean:Q", shape=symbol)
    return spec(level_line("x") + interval + marks, height=22 * len(scores.architectures) + 10)


def difference_rows(scores: Scores) -> dict[str | None, list[Row]]:
    """Every other architecture's score less the leader's, negative where the leader is ahead, in points: of the MAD score (None)
    and of each task."""
    leader, *others = scores.architectures
    return {
        task: [
            {
                "architecture": found.first,
                "mean": 100 * found.mean,
                "low": 100 * found.interval.low,
                "high": 100 * found.interval.high,
                "text": signed_points(found.mean),
                "interval": f"{signed_points(found.interval.low)} to {signed_points(found.interval.high)}",
            }
            for other in others
            if (found := difference(scores, other.label, leader.label, task)) is not None
        ]
        for task in (None, *scores.tasks)
    }


def difference_domain(rows: Mapping[str | None, list[Row]]) -> tuple[float, float]:
    """The bounds of an axis that holds every difference from the leader, in points."""
    every = [row for of_task in rows.values() for row in of_task]
    low, high = min((row["low"] for row in every), default=0.0), max((row["high"] for row in every), default=0.0)
    margin = 0.04 * (max(high, 0.0) - min(low, 0.0)) + 0.1
    return min(low, 0.0) - margin, max(high, 0.0) + margin


def difficulty_axes(settings: Sequence[Task]) -> Iterator[tuple[str, list[Task]]]:
    """Each knob of a task with the settings that differ in it alone from the base, which most others differ from in one knob."""

    def changed(a: Task, b: Task) -> list[str]:
        return [knob for knob, value in a.knobs().items() if b.knobs()[knob] != value]

    base = max(settings, key=lambda setting: sum(len(changed(setting, other)) == 1 for other in settings))
    for knob in base.knobs():
        along = [setting for setting in settings if changed(base, setting) in ([knob], [])]
        if len(along) > 1:
            yield knob, sorted(along, key=lambda setting: setting.knobs()[knob])


def difficulty_panel(scores: Scores, knob: str, settings: Sequence[Task]) -> Spec:
    """Score against one knob of a task, the other knobs at the base setting."""
    rows = []
    for architecture in scores.architectures:
        found = {x.setting: x for task in architecture.tasks for x in task.settings}
        rows += [
            {"architecture": architecture.label, "value": setting.knobs()[knob], **_point(found[setting])}
            for setting in settings
            if found[setting].score is not None
        ]
    colour, symbol, dash = encodings(_labels(scores))
    base = chart(rows).encode(
        x=alt.X("value:O", title=knob, axis=alt.Axis(labelAngle=0, grid=False)),
        color=colour,
        tooltip=["architecture:N", alt.Tooltip("value:O", title=knob), "text:N", "interval:N"],
    )
    lines = base.mark_line(strokeWidth=2).encode(y=_SCORE, strokeDash=dash)
    bars = base.mark_rule(opacity=0.5).encode(y="low:Q", y2="high:Q")
    return spec(bars + lines + points(base, size=45).encode(y="score:Q", shape=symbol), height=190)


def learning_panel(scores: Scores, task: str) -> Spec | None:
    """Score on the selection split against step at the task's first setting: the mean over seeds, and every seed."""
    seeds: list[Row] = []
    means: list[Row] = []
    for architecture in scores.architectures:
        first = next(x for x in architecture.tasks if x.task == task).settings[0]
        curves = [seed.curve for seed in first.seeds if seed.curve is not None]
        if not curves:
            continue
        steps = sorted({int(step) for curve in curves for step in curve[:, 0]})
        held = np.array([np.interp(steps, curve[:, 0], 100 * curve[:, 1]) for curve in curves])
        named = {"architecture": architecture.label}
        for number, values in enumerate(held.tolist()):
            seeds += [{**named, "seed": number, "step": s, "score": v} for s, v in zip(steps, values, strict=True)]
        means += [{**named, "step": s, "score": v} for s, v in zip(steps, held.mean(axis=0).tolist(), strict=True)]
    if not means:
        return None
    last = max(row["step"] for row in means)
    colour, symbol, dash = encodings(_labels(scores))
    mean = chart(_rounded(means)).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(format="~s" if last >= 10_000 else ",d", tickCount=5, grid=False)),
        y=_SCORE,
        color=colour,
        tooltip=["architecture:N", "step:Q", "score:Q"],
    )
    lines = mean.mark_line(strokeWidth=2.25).encode(strokeDash=dash)
    at_the_end = alt.FieldEqualPredicate(field="step", equal=last)
    drawn = lines + points(mean, size=60).encode(shape=symbol).transform_filter(at_the_end)
    if len(scores.architectures) <= MAX_WITH_SEEDS:
        thin = chart(_rounded(seeds)).mark_line(strokeWidth=1, opacity=0.3)
        drawn = thin.encode(x="step:Q", y="score:Q", color=colour, detail=["architecture:N", "seed:N"]) + drawn
    return spec(drawn, height=190)


def cost_panel(scores: Scores, cost: Cost) -> Spec | None:
    """MAD score against one cost; None for fewer than two architectures of which it is known."""
    rows = [
        {"architecture": a.label, "cost": getattr(a.costs, cost), **_point(a)}
        for a in scores.architectures
        if a.score is not None and getattr(a.costs, cost) is not None
    ]
    if len(rows) < 2:
        return None
    colour, symbol, _ = encodings(_labels(scores))
    base = chart(rows).encode(
        x=alt.X("cost:Q", title=None, **_cost_axis([row["cost"] for row in rows])),
        color=colour,
        tooltip=["architecture:N", alt.Tooltip("cost:Q", title=COSTS[cost].split(":")[0], format=",d"), "text:N", "interval:N"],
    )
    low = alt.Y("low:Q", title=f"{scores.mean_name} (%)", scale=alt.Scale(zero=False))
    bars = base.mark_rule(strokeWidth=2).encode(y=low, y2="high:Q")
    return spec(bars + points(base, size=80).encode(y="score:Q", shape=symbol), height=230)


def _cost_axis(costs: Sequence[int]) -> dict[str, Any]:
    """An axis: logarithmic over more than a factor of four; linear below, or if a cost is zero."""
    if min(costs) == 0 or max(costs) < 4 * min(costs):
        return {"scale": alt.Scale(zero=False, padding=12), "axis": alt.Axis(format="~s", tickCount=4, grid=False)}
    return log_axis(costs, grid=False)


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


def _point(found: ArchitectureScore | TaskScore | SettingScore) -> Row:
    assert found.score is not None
    low, high = (found.interval.low, found.interval.high) if found.interval else (found.score, found.score)
    (row,) = _rounded([{"score": 100 * found.score, "low": 100 * low, "high": 100 * high}])
    return {**row, "text": starred(found), "interval": percent_interval(found.interval)}


def _rounded(rows: Sequence[Row]) -> list[Row]:
    """The rows with two decimals, which is more than a chart can show; the page stays small."""
    return [{name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()} for row in rows]


def chart(rows: Sequence[Row]) -> alt.Chart:
    """A chart of these rows."""
    return alt.Chart(alt.InlineData(values=list(rows)))


def points(base: alt.Chart, size: int, opacity: float = 1) -> alt.Chart:
    """Filled points on a chart."""
    found: alt.Chart = base.mark_point(filled=True, size=size, opacity=opacity)
    return found


def level_line(axis: Literal["x", "y"], at: float = 0) -> alt.Chart:
    """A dashed line where an axis has this value."""
    position: Any = {axis: "level:Q"}
    found: alt.Chart = chart([{"level": at}]).mark_rule(strokeDash=[3, 3], opacity=0.6).encode(**position)
    return found


def encodings(labels: Sequence[str]) -> tuple[alt.Color, alt.Shape, alt.StrokeDash]:
    """The colour, symbol and dash of every architecture, by their labels, best first."""
    shared: dict[str, Any] = {"shorthand": "architecture:N", "legend": None}
    values = zip(*map(style, range(len(labels))), strict=True)
    colours, symbols, dashes = (alt.Scale(domain=list(labels), range=list(some)) for some in values)
    return alt.Color(scale=colours, **shared), alt.Shape(scale=symbols, **shared), alt.StrokeDash(scale=dashes, **shared)


def _labels(scores: Scores) -> list[str]:
    return [architecture.label for architecture in scores.architectures]


def spec(layers: alt.LayerChart | alt.FacetChart, height: int) -> Spec:
    """Layers as a chart that fills the width of its column."""
    found: Spec = layers.properties(width="container", height=height).to_dict(validate=False)
    del found["config"], found["$schema"]
    return found
