"""The page of a search: its front, how it got there, the winner's stack, and every candidate."""

import os
from itertools import accumulate

import altair as alt

from archlab.format import percent
from archlab.reports.charts import COLOURS, Row, chart, points, spec
from archlab.reports.html import render_page, write_page
from archlab.reports.panels import Panel, Spec, Table, draw_sections
from archlab.reports.search_tables import again_rows, heads, objective_cells, origin, size_text
from archlab.reports.stack_drawing import draw_stack, draw_strip, layer_colours
from archlab.searching.costs import COSTS
from archlab.searching.result import Candidate, Search

_HEIGHT = 260
_FRONT, _REST = COLOURS[0], COLOURS[-1]
_ORIGINS = {"random": _REST, "exhaustive": _REST, "mutation": COLOURS[0], "crossover": COLOURS[1], "tpe": COLOURS[0]}
_ORIGINS |= {"consensus": COLOURS[2]}


def write_search(found: Search, path: str | os.PathLike[str]) -> None:
    """Write the page, whole or not at all; refuses a place where no page can be written."""
    write_page(path, lambda: render_search(found))


def render_search(found: Search) -> str:
    """Return the text of the page."""
    best = found.best
    colours = layer_colours([one.architecture for one in found.candidates])
    names = ", ".join(found.objectives)
    one_seed = ["The protocol has one seed: intervals say nothing of other seeds."] if len(found.seeds) == 1 else []
    failed = [f"No. {one.number}, {one.spec}, has no score: a trial failed." for one in found.unmeasured]
    return render_page(
        "search.html.jinja",
        draw_sections(PANELS, found),
        [],
        title=f"Search of {found.space}",
        summary=f"search of {found.space} · {len(found.candidates)} of {size_text(found.size)} · {' → '.join(found.rungs)}",
        headline=_headline(found),
        lead=f"Space {found.space}: {found.summary}. {len(found.candidates)} of {size_text(found.size)}, proposed by "
        f"{found.proposer} with seed {found.seed} for {names}, were evaluated. "
        f"Costs are counted at width {found.dim}, length {found.length}.",
        warnings=[*one_seed, *failed],
        bootstrap="",
        found=found,
        stack=draw_stack(best.architecture, dim=found.dim, length=found.length, colours=colours),
        strips=[(one, draw_strip(one.architecture, colours), objective_cells(one, found.objectives)) for one in found.front],
        heads=heads(found),
        colours=colours,
    )


def _headline(found: Search) -> str:
    once_more = next((one for one in found.again if one.role == "winner"), None)
    score = percent(found.best.values[found.main])
    if once_more is None or once_more.fresh is None:
        return f"{found.best.spec} has the best {found.main}, {score} %"
    return f"{found.best.spec} has the best {found.main}: {score} %, and {percent(once_more.fresh)} % from fresh seeds"


def _rows(found: Search) -> list[Row]:
    rows = []
    for one in found.candidates:
        if one.rung != found.rungs[-1] or None in one.values.values():
            continue
        score = one.values[found.main] or 0.0
        interval = one.intervals[found.main]
        rows.append(
            {
                "number": one.number,
                "architecture": one.spec,
                "score": 100 * score,
                "low": 100 * (interval.low if interval else score),
                "high": 100 * (interval.high if interval else score),
                "front": one.on_front,
                "from": origin(one),
                "origin": one.origin,
                **{name: value for name, value in one.values.items() if name != found.main},
            }
        )
    return rows


_TOOLTIP: list[str | alt.Tooltip] = ["number:Q", "architecture:N", alt.Tooltip("score:Q", format=".1f"), "from:N"]


def _fronts(found: Search) -> dict[str, Spec | None]:
    """The first objective against each of the others."""
    rows = _rows(found)
    return {
        f"{found.main} against {name}": _front(found, rows, name)
        for name in found.objectives
        if name != found.main and len(rows) > 1
    }


def _front(found: Search, rows: list[Row], name: str) -> Spec:
    scale = alt.Scale(zero=False, padding=14)
    x = alt.X(f"{name.replace('-', '_')}:Q", title=name, scale=scale, axis=alt.Axis(format="~s", tickCount=5, grid=False))
    renamed = [{key.replace("-", "_"): value for key, value in row.items()} for row in rows]
    column = name.replace("-", "_")
    y = alt.Y("score:Q", title=f"{found.main} (%)", scale=scale)
    rest = points(
        chart([row for row in renamed if not row["front"]]).encode(x=x, y=y, tooltip=_TOOLTIP, color=alt.value(_REST)), 45
    )
    on_front = sorted((row for row in renamed if row["front"]), key=lambda row: row[column])
    base = chart(on_front).encode(x=x, y=y, tooltip=_TOOLTIP, color=alt.value(_FRONT))
    line = base.mark_line(interpolate="step-after" if name in COSTS else "linear", strokeWidth=1.5, opacity=0.6)
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    texts = base.mark_text(align="left", dx=7, dy=-7, fontSize=11).encode(text="number:Q")
    return spec(rest + line + bars + points(base, 80) + texts, _HEIGHT)


def _way(found: Search) -> dict[str, Spec | None]:
    """The first objective over the order of proposals, with the best so far."""
    rows = _rows(found)
    if len(rows) < 2:
        return {}
    best = [
        {"number": row["number"], "best": top}
        for row, top in zip(rows, accumulate((row["score"] for row in rows), max), strict=True)
    ]
    scale = alt.Scale(zero=False, padding=10)
    domain = list(_colours(found))
    colour = alt.Color("origin:N", legend=None, scale=alt.Scale(domain=domain, range=[_ORIGINS[name] for name in domain]))
    x = alt.X("number:Q", title="number of the proposal", axis=alt.Axis(tickCount=6, grid=False))
    y = alt.Y("score:Q", title=f"{found.main} (%)", scale=scale)
    line = chart(best).mark_line(interpolate="step-after", strokeWidth=1.5, opacity=0.6, color="currentColor")
    marks = points(chart(rows).encode(x=x, y=y, color=colour, tooltip=_TOOLTIP), 60)
    return {"": spec(line.encode(x=x, y=alt.Y("best:Q", scale=scale)) + marks, _HEIGHT)}


def _colours(found: Search) -> dict[str, str]:
    return {name: _ORIGINS[name] for name in dict.fromkeys(one.origin for one in found.candidates)}


def _again(found: Search) -> Table:
    note = "Fresh seeds: seeds, and so data and initialisations, that the search has not seen."
    return Table(["", "no.", "architecture", "first", "fresh seeds", "difference"], again_rows(found), note, columns="lrtrrr")


def _importance(found: Search) -> Table | None:
    rows = [[one.choice, f"{100 * one.explained:.0f} %", str(one.evaluated), one.best] for one in found.importance]
    return Table(["choice", "explained", "evaluated", "best alternative"], rows, columns="lrrl") if rows else None


def _all(found: Search) -> Table:
    note = "" if len(found.rungs) == 1 else "Values are of the last rung that a candidate went through."
    rows = [
        [str(one.number), one.spec, *objective_cells(one, found.objectives), origin(one), *_rung(found, one)]
        for one in found.candidates
    ]
    rung = [] if len(found.rungs) == 1 else ["rung"]
    return Table(["no.", "architecture", *heads(found), "from", *rung], rows, note, "rt" + "r" * len(found.objectives) + "tl")


def _rung(found: Search, one: Candidate) -> list[str]:
    return [] if len(found.rungs) == 1 else [one.rung]


PANELS: list[Panel[Search]] = [
    Panel(
        "Front",
        lambda found: f"{len(found.front)} architectures that no other beats",
        lambda found: (
            "Blue: the front, with intervals of 95\N{NO-BREAK SPACE}%, and numbers of the table below. Grey: the others. "
            "The front of measured scores has luck in it: what lies within an interval of it may belong there as well."
        ),
        _fronts,
    ),
    Panel(
        "Once more",
        "The winner from fresh seeds",
        "The best of many scores is partly luck, so the score by which the winner was chosen is too high on average. The second "
        "one is not. The consensus has, layer by layer, what most of the best have.",
        table=_again,
    ),
    Panel(
        "Progress",
        "How the search got there",
        lambda found: f"{found.main} of each proposal that went through {found.rungs[-1]}, and the best so far.",
        _way,
        colours=_colours,
    ),
    Panel(
        "Importance",
        "Which choices matter",
        lambda found: (
            f"The part of the variance of {found.main} that each choice explains by itself, corrected for its number of "
            "alternatives. Choices that go together share what they explain."
        ),
        table=_importance,
    ),
    Panel("Candidates", "All that was evaluated", "In the order of proposals.", table=_all),
]
"""The panels of the page, in order."""
