"""The charts of a scaling report, as Vega-Lite specifications (see :mod:`archlab.reports.charts`)."""

from typing import Any, Literal

import altair as alt
import numpy as np

from archlab.reports.charts import LEGEND, Row, chart, encodings, points, spec, style, zero_line
from archlab.reports.panels import Spec
from archlab.scaling.fits import ParametricFit
from archlab.scaling.laws import METHODS, Laws
from archlab.scaling.study import RunTable
from archlab.scaling.study_fit import StudyFit

HEIGHT = 230
REACH = 10.0
"""Lines of laws go on beyond the largest budget by this factor, dashed."""
_LOG = alt.Scale(type="log", nice=False, padding=12)
_SI = alt.Axis(format="~s", tickCount=4)
_FLOPS = alt.X("flops:Q", title="training FLOPs", scale=_LOG, axis=alt.Axis(format="~e", tickCount=4, labelSeparation=8))
_BUDGETS = alt.Scale(scheme="viridis")
_TIPS: list[Any] = ["parameters:Q", alt.Tooltip("loss:Q", format=".4f"), "budget:O"]


def isoflop_panel(laws: Laws) -> Spec:
    """Loss over parameters, a colour for each budget: runs, parabolas, minima."""
    table = laws.runs
    colour = alt.Color("budget:O", scale=_BUDGETS, legend=alt.Legend(title="budget (FLOPs)", **LEGEND))
    runs = [
        {"parameters": n, "loss": loss, "budget": f"{budget:.3g}"}
        for n, loss, budget in zip(table.N, table.loss, table.budget, strict=True)
    ]
    curves, minima = [], []
    for flops, minimum in table.minima.items():
        budget, sizes = f"{flops:.3g}", table.N[table.budget == flops]
        curves += [
            {"parameters": float(n), "loss": float(minimum(n)), "budget": budget}
            for n in np.geomspace(sizes.min(), sizes.max(), 40)
            if minimum(n) <= table.loss.max()
        ]
        minima.append({"parameters": minimum.size, "loss": minimum.loss, "budget": budget})
    shared: dict[str, Any] = {
        "x": alt.X("parameters:Q", title="parameters", scale=_LOG, axis=_SI),
        "y": _loss_axis("loss:Q", "loss"),
        "color": colour,
    }
    lines = chart(curves).mark_line(strokeWidth=1.5).encode(**shared)
    best = chart(minima).mark_point(shape="diamond", size=130, strokeWidth=2, filled=False).encode(**shared)
    return spec(lines + points(chart(runs), 36, 0.9).encode(**shared, tooltip=_TIPS) + best, HEIGHT)


def frontier_panel(fit: StudyFit, what: Literal["loss", "size", "tokens"]) -> Spec:
    """The least loss of a budget, or its optimal parameters or tokens: minima, and lines of a law.

    For the loss the law is the parametric one, for the others the power law through the minima (the parametric where none).
    """
    rows, lines = [], []
    for laws in fit.laws:
        label = laws.runs.label
        rows += [{"architecture": label, "flops": m.flops, "value": getattr(m, what)} for m in laws.runs.minima.values()]
        methods = ("huber",) if what == "loss" else METHODS
        law = next((laws.by_method[method] for method in methods if method in laws.by_method), None)
        if law is not None:
            lines += _line(label, laws.runs, getattr(law.frontier, what))
    if what == "loss":
        y = _loss_axis("value:Q", "least loss")
    else:
        title = "optimal parameters" if what == "size" else "optimal tokens"
        y = alt.Y("value:Q", title=title, scale=alt.Scale(type="log", nice=False), axis=_SI)
    colour, symbol, _ = encodings([laws.runs.label for laws in fit.laws])
    dash = alt.StrokeDash("beyond:N", scale=alt.Scale(domain=[False, True], range=[[1, 0], [4, 4]]), legend=None)
    shared: dict[str, Any] = {"x": _FLOPS, "y": y, "color": colour}
    drawn = chart(lines).mark_line(strokeWidth=1.5, opacity=0.8).encode(**shared, strokeDash=dash)
    marks = points(chart(rows), 60).encode(**shared, shape=symbol, tooltip=["architecture:N", "flops:Q", "value:Q"])
    return spec(drawn + marks, HEIGHT)


def residual_panel(laws: Laws) -> Spec | None:
    """Observed over predicted loss of the parametric law, by parameters."""
    law = laws.by_method.get("huber")
    if law is None or not isinstance(law.fit, ParametricFit):
        return None
    table = laws.runs
    rows = [
        {"parameters": n, "loss": 100 * (loss / float(law.fit(N=n, D=d)) - 1), "budget": f"{budget:.3g}"}
        for n, d, loss, budget in zip(table.N, table.D, table.loss, table.budget, strict=True)
    ]
    shared: dict[str, Any] = {"color": alt.Color("budget:O", scale=_BUDGETS, legend=None), "tooltip": _TIPS}
    y = alt.Y("loss:Q", title="observed over predicted loss, % off")
    marks: alt.Chart = points(chart(rows), 36, 0.9).encode(x=alt.X("parameters:Q", scale=_LOG, axis=_SI), y=y, **shared)
    return spec(zero_line("y") + marks, HEIGHT)


def difference_panel(fit: StudyFit, second: str) -> Spec | None:
    """Loss of an architecture over that of the reference, by budget."""
    if fit.comparison is None:
        return None
    rows = [
        {"flops": c.budget, "value": c.difference.value, "low": c.difference.low, "high": c.difference.high}
        for c in fit.comparison.rows
        if c.architecture == second
    ]
    if not rows:
        return None
    base = chart(rows).encode(x=_FLOPS)
    colour = style([laws.runs.label for laws in fit.laws].index(second)).colour
    marks = base.mark_point(filled=True, size=60, opacity=1, color=colour).encode(
        y=alt.Y("value:Q", title=f"loss minus that of {fit.comparison.reference}"),
        tooltip=["flops:Q", "value:Q", "low:Q", "high:Q"],
    )
    bars = base.mark_rule(strokeWidth=2, color=colour).encode(y="low:Q", y2="high:Q")
    return spec(zero_line("y") + bars + marks, HEIGHT)


def state_panel(fit: StudyFit) -> Spec | None:
    """Perplexity at the optimum over state, with the shared slope."""
    if isinstance(fit.state, str):
        return None
    rows, lines = [], []
    for laws in fit.laws:
        table = laws.runs
        if table.label not in fit.state.offsets:
            continue
        states = np.geomspace(table.state.min(), table.state.max(), 20)
        lines += [{"architecture": table.label, "state": float(m), "value": float(fit.state(m, table.label))} for m in states]
        rows += [{"architecture": table.label, "state": m, "value": value} for m, value in laws.state_points()]
    colour, symbol, _ = encodings([laws.runs.label for laws in fit.laws])
    y = alt.Y("value:Q", title="perplexity at the optimum", scale=_LOG)
    shared: dict[str, Any] = {"x": alt.X("state:Q", title="state (scalars)", scale=_LOG, axis=_SI), "y": y, "color": colour}
    drawn = chart(lines).mark_line(strokeWidth=1.5, opacity=0.8).encode(**shared)
    return spec(drawn + points(chart(rows), 60).encode(**shared, shape=symbol), HEIGHT)


def _line(label: str, table: RunTable, law: Any) -> list[Row]:
    low, high = float(table.C.min()), float(table.C.max())
    parts = ((False, np.geomspace(low, high, 30)), (True, np.geomspace(high, REACH * high, 15)))
    return [
        {"architecture": label, "flops": float(c), "value": float(law(c)), "beyond": beyond} for beyond, cs in parts for c in cs
    ]


def _loss_axis(field: str, name: str) -> alt.Y:
    return alt.Y(field, title=f"{name} (nats a token)", scale=alt.Scale(zero=False))
