"""Correlations of MAD scores with losses: tables for the terminal, and the page."""

import os
from collections.abc import Iterator, Sequence

import altair as alt
from rich.table import Table as TerminalTable

from archlab.designs.correlation import Correlation, Correlations
from archlab.format import short_task
from archlab.reports.charts import chart, encodings, points, spec
from archlab.reports.html import render_page, write_page
from archlab.reports.panels import Panel, Spec, Table, draw_sections
from archlab.scaling.warnings import grouped

_HEIGHT = 230
_HEADS = ("score", "tau", "interval", "right", "tied", "Spearman", "Pearson", "p", "one left out", "given costs", "verdict")


def correlation_tables(found: Correlations) -> Iterator[TerminalTable]:
    """A table for every outcome."""
    for outcome in _outcomes(found):
        rows = [row for row in found.rows if row.outcome == outcome]
        table = TerminalTable(
            title=f"{outcome} ({rows[0].better} is better)", title_justify="left", box=None, padding=(0, 1, 0, 0)
        )
        heads, cells = _known(rows)
        for i, head in enumerate(heads):
            table.add_column(head, justify="left" if i in (0, len(heads) - 1) else "right")
        for row in cells:
            table.add_row(*row)
        yield table


def write_correlation(found: Correlations, path: str | os.PathLike[str]) -> None:
    """Write the page, whole or not at all; refuses a place where nothing can be written."""
    write_page(path, lambda: render_correlation(found))


def correlation_panels(found: Correlations, labels: Sequence[str]) -> list[Panel[Correlations]]:
    """A panel for every outcome; ``labels`` are the architectures in the order of their colours."""
    return [_panel(found, outcome, labels) for outcome in _outcomes(found)]


def render_correlation(found: Correlations) -> str:
    """Return the text of the page."""
    labels = list(dict.fromkeys(name for row in found.rows for name in row.architectures))
    return render_page(
        "correlation.html.jinja",
        draw_sections(correlation_panels(found, labels), found),
        labels,
        title="MAD scores and losses",
        summary=f"MAD scores and losses · {len(labels)} architectures",
        headline=_headline(found),
        lead="Tau is Kendall's tau-b, positive where the better score goes with the better outcome; its interval of 95 % is over "
        "architectures and over the noise of both columns, as far as that is known. Spearman and Pearson are of the columns as "
        "they stand. " + found.power,
        warnings=[*found.notes, *grouped(("On one side only", name) for name in found.unmatched)],
        bootstrap="",
        found=found,
    )


def _headline(found: Correlations) -> str:
    first = found.rows[0]
    if first.tau is None:
        return "One value only: nothing to correlate"
    n, decisions = len(first.architectures), first.decisions
    return f"MAD scores order {decisions.right} of {decisions.total} pairs of {n} architectures as the {first.outcome} does"


def _panel(found: Correlations, outcome: str, labels: Sequence[str]) -> Panel[Correlations]:
    rows = [row for row in found.rows if row.outcome == outcome]
    return Panel(
        outcome,
        outcome[:1].upper() + outcome[1:],
        f"Scores in percent, or capacities, across, {outcome} down; {rows[0].better} is better. Bars, where the noise is known, "
        "are intervals of 95\N{NO-BREAK SPACE}%.",
        lambda _: {_caption(row): _scatter(row, labels) for row in rows},
        table=lambda _: _table(rows),
        legend=True,
    )


def _caption(row: Correlation) -> str:
    tau = "" if row.tau is None else f": tau {row.tau:.2f}"
    return f"{short_task(row.score)}{tau}"


def _scatter(row: Correlation, labels: Sequence[str]) -> Spec:
    values = []
    for i, name in enumerate(row.architectures):
        score, outcome = row.scores[i], row.outcomes[i]
        across, down = row.score_intervals[i] or (score, score), row.outcome_intervals[i] or (outcome, outcome)
        bounds = {"x_low": across[0], "x_high": across[1], "y_low": down[0], "y_high": down[1]}
        values.append({"architecture": name, "score": score, "outcome": outcome, **bounds})
    colour, symbol, _ = encodings(labels)
    near = alt.Scale(zero=False, padding=14)
    x = alt.X("score:Q", title="capacity" if row.kind == "capacity" else "score (%)", scale=near, axis=alt.Axis(tickCount=5))
    y = alt.Y("outcome:Q", title=row.outcome.partition(",")[0], scale=near)
    base = chart(values).encode(color=colour)
    across_bars = base.mark_rule(opacity=0.6).encode(x=alt.X("x_low:Q", scale=near), x2="x_high:Q", y=y)
    down_bars = base.mark_rule(opacity=0.6).encode(x=x, y=alt.Y("y_low:Q", scale=near), y2="y_high:Q")
    marks = points(base, 60).encode(x=x, y=y, shape=symbol, tooltip=["architecture:N", "score:Q", "outcome:Q"])
    return spec(marks + across_bars + down_bars, _HEIGHT)


def _table(rows: Sequence[Correlation]) -> Table:
    heads, cells = _known(rows)
    return Table(heads, cells, note=_influences(rows), columns="l" + "r" * (len(heads) - 2) + "l")


def _known(rows: Sequence[Correlation]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the columns that are known in some row."""
    cells = [_cells(row) for row in rows]
    known = [i for i in range(len(_HEADS)) if any(row[i] != "–" for row in cells)]
    return [_HEADS[i] for i in known], [[row[i] for i in known] for row in cells]


def _cells(row: Correlation) -> list[str]:
    interval = "–" if row.interval is None else f"{row.interval.low:.2f} to {row.interval.high:.2f}"
    influence = row.influence
    return [
        short_task(row.score),
        _number(row.tau),
        interval,
        f"{row.decisions.right}/{row.decisions.total}",
        str(row.decisions.tied or "–"),
        _number(row.spearman),
        _number(row.pearson),
        _number(row.p if row.p_holm is None else row.p_holm, 3),
        "–" if influence is None else f"{influence.low:.2f} to {influence.high:.2f}",
        _number(row.partial_tau),
        row.verdict,
    ]


def _influences(rows: Sequence[Correlation]) -> str:
    """How to read the table, with the architectures without which tau changes most."""
    most = [
        f"{short_task(row.score)} {row.influence.tau:.2f} without {row.influence.architecture}" for row in rows if row.influence
    ]
    left_out = f" One left out: the range of tau; it changes most to {', '.join(most)}." if most else ""
    return f"Right: pairs of architectures in the order of the outcome.{left_out} p: after Holm's correction over the tasks."


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _outcomes(found: Correlations) -> list[str]:
    return list(dict.fromkeys(row.outcome for row in found.rows))
