"""The report's charts, as Vega-Lite specifications: one small panel each, so that a page can arrange them.

Text and lines take the page's colour (``currentColor``): they are drawn as SVG and follow light and dark.
Scores are in percent. Every architecture keeps its colour and symbol in every panel.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import altair as alt
import numpy as np

from archlab.errors import unknown
from archlab.format import human, percent_interval, short_task, starred
from archlab.format import points as signed_points
from archlab.mad.architecture_score import ArchitectureScore, SettingScore, TaskScore
from archlab.mad.comparison import difference
from archlab.mad.scores import Scores
from archlab.reports.axes import log_axis
from archlab.reports.marks import end_labels, fading, listed, room_for_labels, shown_if, spread
from archlab.reports.panels import Spec
from archlab.searching.pareto import front
from archlab.tasks import Task

Row = dict[str, Any]

_HEAD_WIDTH = 80
"""Pixels that the longest head of a heat map takes; where columns are narrower, heads are slanted."""
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
        "labelSeparation": 6, "titleFontSize": 11, "titleFontWeight": "normal", "labelLimit": 180, "titlePadding": 8,
    },
    "axisYQuantitative": {"minExtent": 30},
    "text": {"color": "currentColor"},
    "rule": {"color": "currentColor"},
}  # fmt: skip

_LINES = 190
"""Height of charts of lines, in pixels."""
_VALUE_WIDTH = 44
"""Pixels right of a plot for a printed number."""
_AT = alt.Y("at:Q")
_SCORE = alt.Y("score:Q", title="score (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))

Cost = Literal["num_params", "state_size", "flops", "cpu_seconds"]
COSTS: dict[Cost, str] = {
    "num_params": "parameters",
    "state_size": "state: scalars carried from token to token",
    "flops": "FLOPs: one forward pass over one sequence",
    "cpu_seconds": "processor seconds: mean of the trials that count",
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
    """Distance of every other architecture from the leader, on one task or (None) in the MAD score, from the rows of all: mean,
    interval and single seeds, and the mean as a number; refuses a task that is not scored."""
    if task not in rows:
        raise unknown("task", str(task), scores.tasks)
    if not rows[task]:
        return None
    colour, symbol, _ = encodings(_labels(scores))
    seeds = [{"architecture": row["architecture"], "seed": seed} for row in rows[task] for seed in row["seeds"]]
    every = [0.0, *(row[bound] for row in rows[task] for bound in ("low", "high")), *(row["seed"] for row in seeds)]
    margin = 0.04 * (max(every) - min(every)) + 0.1
    scale = alt.Scale(domain=[min(every) - margin, max(every) + margin], range=[0, alt.ExprRef(f"width - {_VALUE_WIDTH}")])
    y = alt.Y("architecture:N", sort=_labels(scores), title=None, axis=alt.Axis(grid=False))
    plain = chart(_rounded([{name: row[name] for name in row if name != "seeds"} for row in rows[task]]))
    base = plain.encode(y=y, color=colour, tooltip=["architecture:N", "text:N", "interval:N"])
    low = alt.X("low:Q", scale=scale, axis=alt.Axis(title="percentage points", tickCount=4))
    interval = base.mark_rule(strokeWidth=2.5).encode(x=low, x2="high:Q")
    marks = points(base, size=60).encode(x="mean:Q", shape=symbol)
    printed = plain.mark_text(align="right", fontSize=10.5).encode(
        x=alt.value("width"), y=y, text="text:N", detail="architecture:N"
    )
    dots = chart(seeds).mark_point(size=22, strokeWidth=1.2, color="currentColor")
    drawn = level_line("x") + interval + marks + printed
    if seeds:
        drawn += dots.encode(x="seed:Q", y=y, detail="architecture:N")
    says = listed([f"{row['architecture']} {row['text']} ({row['interval']})" for row in rows[task]])
    return spec(drawn, height=max(22 * len(rows[task]), 44), says=f"Points from {scores.architectures[0].label}: {says}")


def difference_rows(scores: Scores) -> dict[str | None, list[Row]]:
    """Every other architecture's score less the leader's, negative where the leader is ahead, in points: of the MAD score (None)
    and of each task; of several seeds the difference of each too."""
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
                "seeds": [] if scores.one_seed else _seed_differences(other, leader, task),
            }
            for other in others
            if (found := difference(scores, other.label, leader.label, task)) is not None
        ]
        for task in (None, *scores.tasks)
    }


def _seed_differences(first: ArchitectureScore, second: ArchitectureScore, task: str | None) -> list[float]:
    """The difference at every seed for which both have all the scores of the task, or of all tasks that count, in points."""
    sides = [seed_scores(one, task) for one in (first, second)]
    return [round(100 * (sides[0][seed] - sides[1][seed]), 2) for seed in sides[0] if seed in sides[1]]


def seed_scores(architecture: ArchitectureScore, task: str | None) -> dict[int, float]:
    """Score of every seed that has all scores of a task, or (None) of the tasks that count: mean over settings, then tasks."""
    tasks = [x for x in architecture.in_mean if task is None] or [x for x in architecture.tasks if x.task == task]
    by_task = [[{seed.seed: seed.score for seed in setting.seeds} for setting in one.settings] for one in tasks]
    seeds = {seed for settings in by_task for found in settings for seed in found}
    known = [seed for seed in sorted(seeds) if all(found.get(seed) is not None for settings in by_task for found in settings)]
    return {seed: float(np.mean([np.mean([found[seed] for found in settings]) for settings in by_task])) for seed in known}


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
    labels = _labels(scores)
    x = alt.X("value:O", title=knob, scale=_beside_labels(labels), axis=alt.Axis(labelAngle=0, grid=False))
    tooltip: list[Any] = ["architecture:N", alt.Tooltip("value:O", title=knob), "text:N", "interval:N"]
    base = chart(rows).encode(x=x, color=colour, tooltip=tooltip)
    lines = base.mark_line(strokeWidth=2).encode(y=_SCORE, strokeDash=dash)
    bars = base.mark_rule(opacity=0.5).encode(y="low:Q", y2="high:Q")
    ends = {row["architecture"]: row for row in rows}  # the last of each
    named = end_labels(_spread_ends(ends.values()).encode(x=x), labels, _AT)
    along = {name: [f"{row['text']} at {row['value']}" for row in rows if row["architecture"] == name] for name in ends}
    says = listed([f"{name} {', '.join(scored)}" for name, scored in along.items()])
    return spec(bars + lines + points(base, size=45).encode(y="score:Q", shape=symbol) + named, height=_LINES, says=says)


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
    labels = _labels(scores)
    axis = alt.Axis(format="~s" if last >= 10_000 else ",d", tickCount=4, grid=False)
    x = alt.X("step:Q", title="step", scale=_beside_labels(labels), axis=axis)
    mean = chart(_rounded(means)).encode(x=x, y=_SCORE, color=colour, tooltip=["architecture:N", "step:Q", "score:Q"])
    lines = mean.mark_line(strokeWidth=2.25).encode(strokeDash=dash)
    ends = {row["architecture"]: row for row in means}  # the last of each
    drawn = lines + points(chart(_rounded([*ends.values()])), size=60).encode(x=x, y=_SCORE, color=colour, shape=symbol)
    if len(scores.architectures) <= MAX_WITH_SEEDS:
        thin = chart(_rounded(seeds)).mark_line(strokeWidth=1, opacity=0.3)
        drawn = thin.encode(x="step:Q", y="score:Q", color=colour, detail=["architecture:N", "seed:N"]) + drawn
    best = sorted(ends.values(), key=lambda row: -row["score"])
    says = listed([f"{row['architecture']} {row['score']:.1f}" for row in best])
    drawn += end_labels(_spread_ends(best).encode(x=x), labels, _AT)
    return spec(drawn, height=_LINES, says=f"Score after the last step: {says}")


def _beside_labels(labels: Sequence[str]) -> alt.Scale:
    """A scale across that leaves room for labels at the ends of lines."""
    room = room_for_labels(labels)
    return alt.Scale(range=[0, alt.ExprRef(f"width - {room}")]) if room else alt.Scale()


def _spread_ends(ends: Iterable[Row]) -> alt.Chart:
    """The last points of lines with the heights of their labels."""
    rows = list(ends)
    heights = spread([row["score"] for row in rows], apart=100 * 11 / _LINES, low=0, high=100)
    drawn: list[Row] = [{name: row[name] for name in ("architecture", "value", "step") if name in row} for row in rows]
    return chart(_rounded([{**row, "at": height} for row, height in zip(drawn, heights, strict=True)]))


def cost_panel(scores: Scores, cost: Cost) -> Spec | None:
    """MAD score against one cost, with the line of the best score at each cost and the labels of the architectures on it; None
    for fewer than two architectures of which it is known."""
    known = [(a, value) for a in scores.architectures if a.score is not None and (value := cost_of(scores, a, cost)) is not None]
    rows = [{"architecture": a.label, "cost": value, **_point(a)} for a, value in known]
    if len(rows) < 2:
        return None
    best = front(np.array([(row["cost"], -row["score"]) for row in rows]))
    for index, row in enumerate(rows):
        row["pareto"] = index in best
    axis = _cost_axis([row["cost"] for row in rows])
    low, high = min(row["score"] for row in rows), max(row["score"] for row in rows)
    places = _along([row["cost"] for row in rows], log="domain" in axis["scale"].to_dict())
    named: list[tuple[float, float]] = []
    for row, place in sorted(zip(rows, places, strict=True), key=lambda one: -one[0]["score"]):
        height = 230 * (row["score"] - low) / ((high - low) or 1)
        free = all(abs(height - other) > 13 or abs(place - at) > 0.45 for other, at in named)
        row |= {"named": row["pareto"] and free, "right": place < 0.45}
        named += [(height, place)] if row["named"] else []
    colour, symbol, _ = encodings(_labels(scores))
    tip = alt.Tooltip("cost:Q", title=COSTS[cost].split(":")[0], format=",.10~r")
    x = alt.X("cost:Q", title=None, **axis)
    base = chart(rows).encode(x=x, color=colour, tooltip=["architecture:N", tip, "text:N", "interval:N"])
    down = alt.Y("low:Q", title=f"{scores.mean_name} (%)", scale=alt.Scale(zero=False))
    bars = base.mark_rule(strokeWidth=2).encode(y=down, y2="high:Q")
    line = chart(rows).transform_filter("datum.pareto").mark_line(interpolate="step-after", strokeDash=[2, 3], opacity=0.7)
    grey = line.encode(x=x, y="score:Q", color=alt.value("currentColor"))
    drawn = grey + bars + points(base, size=80).encode(y="score:Q", shape=symbol)
    for right in sorted({row["right"] for row in rows}):
        texts = chart(rows).transform_filter(alt.FieldEqualPredicate(field="right", equal=right))
        texts = texts.mark_text(align="left" if right else "right", dx=5 if right else -5, dy=-9, fontSize=10)
        drawn += texts.encode(x=x, y="score:Q", text="architecture:N", opacity=shown_if("datum.named"))
    frontier = sorted((row for row in rows if row["pareto"]), key=lambda row: row["cost"])
    says = listed([f"{row['architecture']} {row['text']} at {human(row['cost'])}" for row in frontier])
    return spec(drawn, height=230, says=f"The best at each cost: {says}")


def cost_of(scores: Scores, architecture: ArchitectureScore, cost: Cost) -> float | None:
    """A cost of an architecture; None where it is not known."""
    if cost != "cpu_seconds":
        found: int | None = getattr(architecture.costs, cost)
        return found
    keys = {seed.key for task in architecture.tasks for setting in task.settings for seed in setting.seeds}
    spent = [r.result.cpu_seconds for r in scores.records if r.key in keys and r.result is not None]
    return float(np.mean(spent)) if spent and sum(spent) > 0 else None


def _along(values: Sequence[float], *, log: bool) -> list[float]:
    """The place of each value between the least (0) and the largest (1), as the axis has it."""
    placed = np.log(values) if log else np.asarray(values, dtype=float)
    return [float(x) for x in (placed - placed.min()) / (np.ptp(placed) or 1)]


def _cost_axis(costs: Sequence[float]) -> dict[str, Any]:
    """An axis: logarithmic over more than a factor of four; linear below, or if a cost is zero."""
    if min(costs) == 0 or max(costs) < 4 * min(costs):
        return {
            "scale": alt.Scale(zero=False, padding=12),
            "axis": alt.Axis(format="~s" if max(costs) >= 1000 else "~g", tickCount=4, grid=False),
        }
    return log_axis(costs, grid=False)


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


def spec(layers: alt.LayerChart | alt.FacetChart, height: int, says: str = "") -> Spec:
    """Layers as a chart that fills the width of its column; ``says`` is its text for who cannot see it."""
    found: Spec = layers.properties(width="container", height=height).to_dict(validate=False)
    del found["config"], found["$schema"]
    with_rows = {name for name, rows in found["datasets"].items() if rows}
    # Vega warns of layers without a row; of a chart that has no other they stay, for its axes.
    shown = [layer for layer in found["layer"] if "data" not in layer or layer["data"]["name"] in with_rows]
    found["layer"] = shown or found["layer"]
    return fading(found) | ({"description": says} if says else {})
