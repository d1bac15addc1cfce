"""The charts of a scaling report, as Vega-Lite specifications (see :mod:`archlab.reports.charts`).

Panels of several architectures, side by side, share their axes and the colours of budgets.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import altair as alt
import numpy as np

from archlab.errors import ArchlabError
from archlab.reports.axes import log_axis
from archlab.reports.charts import Row, chart, encodings, level_line, points, spec, style
from archlab.reports.panels import Spec
from archlab.scaling.analysis.comparison import REACH, Comparison, compare_study
from archlab.scaling.fits import ParametricFit
from archlab.scaling.fits.isoflop import SAME_BUDGET
from archlab.scaling.laws import METHODS, Estimate, Law, Laws
from archlab.scaling.study import RunTable
from archlab.scaling.study_fit import StudyFit

HEIGHT = 230
"""Lines of laws go on beyond the largest budget by this factor, dashed."""
MAX_POINTS = 60
"""Points of a loss curve that are drawn at most."""
CONTOURS = 7
"""Contours of a law in a panel."""
RAMP = ("#4f6bd8", "#b0519b", "#d9731f")
"""Colours of budgets from the smallest to the largest: each at least three times as bright, or dark, as paper and night."""
_POWER = "replace(format(datum.value, '~e'), '+', '')"
_LOSS = "nats a token"
_DASH = alt.StrokeDash("beyond:N", scale=alt.Scale(domain=[False, True], range=[[1, 0], [4, 4]]), legend=None)
_TIPS: list[Any] = [alt.Tooltip("parameters:Q", format=",.0f"), alt.Tooltip("loss:Q", format=".4f"), "budget:N"]


def budget_colours(fit: StudyFit) -> dict[str, str]:
    """A colour for each budget of the study, the smallest first."""
    budgets = [f"{budget:.3g} FLOPs" for budget in np.unique(np.concatenate([laws.runs.budget for laws in fit.laws]))]
    ramp = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP])
    at = np.linspace(0, len(RAMP) - 1, len(budgets))
    mixed = np.stack([np.interp(at, range(len(RAMP)), part) for part in ramp.T], axis=1).round().astype(int)
    return {budget: "#" + "".join(f"{part:02x}" for part in colour) for budget, colour in zip(budgets, mixed, strict=True)}


def comparison_panels(fit: StudyFit) -> dict[str, Spec | None]:
    """Compute multiplier and loss difference of every architecture over the budget, beside the reference."""
    found = fit.comparison
    if found is None or not found.rows:
        return {}
    budgets = [row.budget for row in found.rows]
    flops = np.geomspace(min(budgets), REACH * max(budgets), 33).tolist()
    tables = {one.runs.label: one.runs for one in fit.laws}
    costs = {one.runs.label: one.cost for one in fit.laws}
    try:
        along = compare_study(tables, fit.resampling, reference=found.reference, flops=flops, costs=costs).rows
    except ArchlabError:  # no two architectures have laws: minima only
        along = ()
    return {
        f"Compute for the loss of {found.reference}, over the budget": _beside(fit, along, "multiplier"),
        f"Loss minus that of {found.reference}": _beside(fit, along, "difference"),
    }


def _beside(fit: StudyFit, along: Sequence[Comparison], what: Literal["multiplier", "difference"]) -> Spec | None:
    """A line with its band for each architecture, dashed beyond the runs, and trained budgets as points with their intervals."""
    assert fit.comparison is not None
    log = what == "multiplier"
    trained = [(row, found) for row in fit.comparison.rows if (found := getattr(row, what)) is not None]
    if not trained:
        return None
    same, scaled, back = (1.0, np.log, np.exp) if log else (0.0, np.asarray, np.asarray)
    values = scaled([same, *(found.value for _, found in trained)])
    bounds = [(found.value, bound) for _, found in trained for bound in (found.low, found.high) if bound]
    room = 2 * max(np.ptp(values), np.median(np.ptp(scaled(bounds), axis=1)) if bounds else 0.0, 0.01)
    limits = float(back(values.min() - room)), float(back(values.max() + room))
    rows = [_beside_row(row, found, limits) for row, found in trained]
    lines = []
    for label in dict.fromkeys(row.architecture for row in along):
        known = [row for row in along if row.architecture == label and getattr(row, what) is not None]
        within = [row.budget for row in known if row.extrapolation <= SAME_BUDGET]
        parts = (
            ("below", True, [row for row in known if not within or row.budget <= within[0]]),
            ("within", False, [row for row in known if within and within[0] <= row.budget <= within[-1]]),
            ("above", True, [row for row in known if within and row.budget >= within[-1]]),
        )
        lines += [
            {**_beside_row(row, getattr(row, what), limits), "part": part, "beyond": beyond}
            for part, beyond, some in parts
            for row in some
            if len(some) > 1 and limits[0] <= getattr(row, what).value <= limits[1]
        ]
    shown = [row[name] for row in (*rows, *lines) for name in ("value", "low", "high")] + [same]
    title = "compute multiplier" if log else f"loss difference ({_LOSS})"
    axis: dict[str, Any] = log_axis(shown, "format(datum.value, '~g')") if log else {"scale": alt.Scale(zero=True)}
    y = alt.Y("value:Q", title=title, **axis)
    colour, symbol, _ = encodings(_labels(fit))
    x = alt.X("flops:Q", title="training FLOPs", **log_axis([row["flops"] for row in (*rows, *lines)], _POWER))
    tips: list[Any] = ["architecture:N", alt.Tooltip("flops:Q", format=".3~g")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3~g" if log else ".4f") for name in ("value", "low", "high")]
    along_x = chart(lines).encode(x=x, color=colour, detail=["part:N"])
    band = along_x.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=title, **axis), y2="high:Q")
    line = along_x.mark_line(strokeWidth=2).encode(y=y, strokeDash=_DASH)
    at = chart(rows).encode(x=x, color=colour)
    bars = at.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=title, **axis), y2="high:Q")
    marks = points(at, 60).encode(y=y, shape=symbol, tooltip=tips)
    return spec(level_line("y", same) + band + line + bars + marks, 290)


def _beside_row(row: Comparison, found: Estimate, limits: tuple[float, float]) -> Row:
    """The row of a chart; a bound that lies beyond the limits, or that there is none of, stands at the limit."""
    low, high = found.low, found.high
    if low is None:
        low = high = found.value
    low, high = (float(np.clip(x, *limits)) for x in (low, math.inf if high is None else high))
    return {"architecture": row.architecture, "flops": row.budget, "value": found.value, "low": low, "high": high}


def isoflop_panel(fit: StudyFit, laws: Laws) -> Spec:
    """Loss over parameters, a colour for each budget: runs, parabolas, minima."""
    table = laws.runs
    curves, minima = [], []
    for flops, minimum in table.minima.items():
        budget, sizes = f"{flops:.3g} FLOPs", table.N[table.budget == flops]
        curves += [
            {"parameters": float(n), "loss": float(minimum(n)), "budget": budget}
            for n in np.geomspace(sizes.min(), sizes.max(), 40)
            if minimum(n) <= table.loss.max()
        ]
        minima.append({"parameters": minimum.size, "loss": minimum.loss, "budget": budget})
    shared: dict[str, Any] = {"x": _sizes(fit), "y": _losses("loss", _all(fit, "loss")), "color": _budgets(fit)}
    lines = chart(curves).mark_line(strokeWidth=1.5).encode(**shared)
    best = chart(minima).mark_point(shape="diamond", size=130, strokeWidth=2, filled=False).encode(**shared)
    return spec(lines + points(chart(_runs(table)), 36, 0.9).encode(**shared, tooltip=_TIPS) + best, HEIGHT)


def frontier_panel(fit: StudyFit, what: Literal["loss", "size", "tokens"]) -> Spec:
    """The least loss of a budget, or its optimal parameters or tokens: minima, and lines of a law.

    For the loss the law is the parametric one, for the others the first of :data:`METHODS` that there is.
    """
    rows, lines = [], []
    for laws in fit.laws:
        label = laws.runs.label
        rows += [{"architecture": label, "flops": m.flops, "value": getattr(m, what)} for m in laws.runs.minima.values()]
        methods = ("huber",) if what == "loss" else METHODS
        law = next((laws.by_method[method] for method in methods if method in laws.by_method), None)
        if law is not None:
            of_budget = getattr(law.frontier, what)
            cs = [(float(c), beyond) for c, beyond in _budgets_along(laws.runs)]
            lines += [{"architecture": label, "flops": c, "value": float(of_budget(c)), "beyond": beyond} for c, beyond in cs]
    values = [row["value"] for row in (*rows, *lines)]
    if what == "loss":
        y = _losses("value", values, "least loss")
    else:
        y = alt.Y("value:Q", title="optimal parameters" if what == "size" else "optimal tokens", **log_axis(values or [1.0]))
    colour, symbol, _ = encodings(_labels(fit))
    budgets = _all(fit, "C")
    x = alt.X("flops:Q", title="training FLOPs", **log_axis([budgets.min(), REACH * budgets.max()], _POWER))
    shared: dict[str, Any] = {"x": x, "y": y, "color": colour}
    drawn = chart(lines).mark_line(strokeWidth=1.5, opacity=0.8).encode(**shared, strokeDash=_DASH)
    marks = points(chart(rows), 60).encode(**shared, shape=symbol, tooltip=["architecture:N", "flops:Q", "value:Q"])
    return spec(drawn + marks, HEIGHT)


def contour_panel(fit: StudyFit, laws: Laws) -> Spec | None:
    """Lines of equal loss over parameters and tokens by the parametric law, the runs, and the compute-optimal sizes."""
    law, table = _parametric(laws), laws.runs
    if law is None:
        return None
    assert isinstance(law.fit, ParametricFit)
    every_size, every_tokens = _all(fit, "N"), _all(fit, "D")
    sizes, tokens = log_axis(every_size), log_axis(every_tokens)
    (left, right), (bottom, top) = (axis["scale"]["domain"] for axis in (sizes, tokens))
    most, least = law.fit(N=[every_size.min(), right], D=[every_tokens.min(), top]) - law.fit.E
    contours, texts = [], []
    for level in law.fit.E + np.geomspace(least, most, CONTOURS + 2)[1:-1]:
        along = [
            {"parameters": float(n), "tokens": d, "level": f"{level:.3g}"}
            for n in np.geomspace(left, right, 60)
            if bottom <= (d := _tokens_for(law.fit, float(n), float(level))) <= top
        ]
        contours += along
        texts += along[-1:]
    best = [
        {"parameters": float(law.frontier.size(c)), "tokens": float(law.frontier.tokens(c)), "beyond": beyond}
        for c, beyond in _budgets_along(table)
    ]
    best = [row for row in best if left <= row["parameters"] <= right and bottom <= row["tokens"] <= top]
    runs = [{**row, "tokens": d} for row, d in zip(_runs(table), table.D.tolist(), strict=True)]
    shared: dict[str, Any] = {"x": _sizes(fit), "y": alt.Y("tokens:Q", title="tokens", **tokens)}
    lines = chart(contours).mark_line(strokeWidth=1, opacity=0.4, color="currentColor").encode(**shared, detail="level:N")
    named = chart(texts).mark_text(align="right", baseline="bottom", dy=-2, fontSize=10).encode(**shared, text="level:N")
    marks = points(chart(runs), 30, 0.9).encode(**shared, color=_budgets(fit), tooltip=[*_TIPS, "tokens:Q"])
    colour = style(_labels(fit).index(table.label)).colour
    line = chart(best).mark_line(strokeWidth=2.5, color=colour).encode(**shared, strokeDash=_DASH)
    return spec(lines + line + marks + named, 300)


def _tokens_for(fit: ParametricFit, size: float, loss: float) -> float:
    """The tokens at which a model of this size reaches a loss; infinite where it never does."""
    left = loss - fit.E - fit.A * size**-fit.alpha
    return math.inf if left <= 0 else (fit.B / left) ** (1 / fit.beta)


def off_optimal_panel(fit: StudyFit) -> Spec | None:
    """Loss above the minimum over size relative to the best: parabolas, thick at the largest budget, with its runs."""
    curves: list[Row] = []
    runs: list[Row] = []
    bars: list[Row] = []
    for laws in fit.laws:
        table = laws.runs
        for budget, minimum in table.minima.items():
            rows = table.fitted(budget)
            named = {"architecture": table.label, "budget": f"{budget:.3g} FLOPs", "largest": budget == max(table.minima)}
            sizes = np.geomspace(table.N[rows].min(), table.N[rows].max(), 30)
            curves += [{**named, "ratio": float(n / minimum.size), "excess": float(minimum(n)) - minimum.loss} for n in sizes]
            if named["largest"]:
                pairs = zip(table.N[rows] / minimum.size, table.loss[rows] - minimum.loss, strict=True)
                runs += [{**named, "ratio": float(ratio), "excess": float(excess)} for ratio, excess in pairs]
                bars += [
                    {**named, "ratio": one.fraction, "low": one.excess.low, "high": one.excess.high}
                    for one in fit.off_optimal
                    if (one.label, one.budget) == (table.label, budget) and one.excess.low is not None
                ]
    if not curves:
        return None
    colour, symbol, _ = encodings(_labels(fit))
    ratios = log_axis([row["ratio"] for row in (*curves, *runs)], "format(datum.value, '~g')")
    y = alt.Y("excess:Q", title=f"loss above the minimum ({_LOSS})")
    shared: dict[str, Any] = {"x": alt.X("ratio:Q", title="parameters over the best, N / N*", **ratios), "color": colour}
    width = alt.condition("datum.largest", alt.value(2.5), alt.value(1))
    faint = alt.condition("datum.largest", alt.value(1), alt.value(0.35))
    tips: list[Any] = ["architecture:N", "budget:N", alt.Tooltip("ratio:Q", format=".3~g"), alt.Tooltip("excess:Q", format=".4f")]
    lines = chart(curves).mark_line().encode(**shared, y=y, detail="budget:N", strokeWidth=width, opacity=faint)
    intervals = chart(bars).mark_rule(strokeWidth=2).encode(**shared, y="low:Q", y2="high:Q")
    marks = points(chart(runs), 50).encode(**shared, y=y, shape=symbol, tooltip=tips)
    return spec(level_line("y") + lines + intervals + marks, 290)


def curve_panel(fit: StudyFit, laws: Laws) -> Spec | None:
    """Training loss over the FLOPs spent so far, a line for each run and a colour for each budget."""
    curves = {one.runs.label: list(_curves(one.runs)) for one in fit.laws}
    rows = curves[laws.runs.label]
    if not rows:
        return None
    every = list(chain.from_iterable(curves.values()))
    x = alt.X("flops:Q", title="training FLOPs so far", **log_axis([row["flops"] for row in every], _POWER))
    y = _losses("loss", [row["loss"] for row in every], "training loss")
    lines = chart(rows).mark_line(strokeWidth=1, opacity=0.8).encode(x=x, y=y, color=_budgets(fit), detail="run:N")
    return spec(alt.layer(lines), HEIGHT)


def _curves(table: RunTable) -> Iterator[Row]:
    for run, (model, flops, budget) in enumerate(zip(table.models, table.C, table.budget, strict=True)):
        fractions, losses = model.curve
        for i in np.linspace(0, len(losses) - 1, min(len(losses), MAX_POINTS)).round().astype(int).tolist():
            spent = float(f"{fractions[i] * flops:.4g}")
            yield {"flops": spent, "loss": round(float(losses[i]), 4), "budget": f"{budget:.3g} FLOPs", "run": run}


def residual_panel(fit: StudyFit, laws: Laws) -> Spec | None:
    """Observed over predicted loss of the parametric law, by parameters."""
    residuals = {one.runs.label: list(_residuals(one)) for one in fit.laws}
    rows = residuals[laws.runs.label]
    if not rows:
        return None
    most = max(abs(row["off"]) for some in residuals.values() for row in some)
    y = alt.Y("off:Q", title="observed over predicted loss, % off", scale=alt.Scale(domain=[-most, most], padding=6))
    marks = points(chart(rows), 36, 0.9).encode(x=_sizes(fit), y=y, color=_budgets(fit), tooltip=[*_TIPS, "off:Q"])
    return spec(level_line("y") + marks, HEIGHT)


def _residuals(laws: Laws) -> Iterator[Row]:
    law = laws.by_method.get("huber")
    if law is not None and isinstance(law.fit, ParametricFit):
        for row, expected in zip(_runs(laws.runs), law.fit(N=laws.runs.N, D=laws.runs.D), strict=True):
            yield {**row, "off": 100 * (row["loss"] / float(expected) - 1)}


def state_panel(fit: StudyFit) -> Spec | None:
    """Perplexity at the optimum over state, with the shared slope."""
    if isinstance(fit.state, str):
        return None
    rows: list[Row] = []
    lines: list[Row] = []
    for laws in fit.laws:
        table = laws.runs
        if table.label not in fit.state.offsets:
            continue
        states = np.geomspace(table.state.min(), table.state.max(), 20)
        lines += [{"architecture": table.label, "state": float(m), "value": float(fit.state(m, table.label))} for m in states]
        rows += [{"architecture": table.label, "state": m, "value": value} for m, value in laws.state_points()]
    colour, symbol, _ = encodings(_labels(fit))
    shown = [*rows, *lines]
    x = alt.X("state:Q", title="state (scalars)", **log_axis([row["state"] for row in shown]))
    y = alt.Y("value:Q", title="perplexity at the optimum", **log_axis([row["value"] for row in shown]))
    shared: dict[str, Any] = {"x": x, "y": y, "color": colour}
    drawn = chart(lines).mark_line(strokeWidth=1.5, opacity=0.8).encode(**shared)
    return spec(drawn + points(chart(rows), 60).encode(**shared, shape=symbol), HEIGHT)


def _parametric(laws: Laws) -> Law | None:
    return next((law for law in laws.by_method.values() if isinstance(law.fit, ParametricFit)), None)


def _budgets_along(table: RunTable) -> list[tuple[float, bool]]:
    """Budgets from the smallest to beyond the largest, and whether they lie beyond; the largest comes twice."""
    low, high = float(table.C.min()), float(table.C.max())
    within, beyond = np.geomspace(low, high, 30).tolist(), np.geomspace(high, REACH * high, 15).tolist()
    return [*((c, False) for c in within), *((c, True) for c in beyond)]


def _labels(fit: StudyFit) -> list[str]:
    return [laws.runs.label for laws in fit.laws]


def _all(fit: StudyFit, column: str) -> Any:
    return np.concatenate([getattr(laws.runs, column) for laws in fit.laws])


def _runs(table: RunTable) -> list[Row]:
    columns = zip(table.N.tolist(), table.loss.tolist(), table.budget.tolist(), strict=True)
    return [{"parameters": n, "loss": loss, "budget": f"{budget:.3g} FLOPs"} for n, loss, budget in columns]


def _sizes(fit: StudyFit) -> alt.X:
    return alt.X("parameters:Q", title="parameters", **log_axis(_all(fit, "N")))


def _budgets(fit: StudyFit) -> alt.Color:
    colours = budget_colours(fit)
    return alt.Color("budget:N", scale=alt.Scale(domain=[*colours], range=[*colours.values()]), legend=None)


def _losses(field: str, values: Iterable[float], name: str = "loss") -> alt.Y:
    values = list(values)
    low, high = min(values, default=0.0), max(values, default=1.0)
    around = 0.01 * high if low == high else 0.0  # a domain of one value has a tick at a rounded one
    domain = [low - around, high + around]
    return alt.Y(f"{field}:Q", title=f"{name} ({_LOSS})", scale=alt.Scale(domain=domain, zero=False, nice=True, padding=4))
