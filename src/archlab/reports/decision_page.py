"""The page of a design study: what to build, by how much it is better, how surely, at which price, and what was not tried."""

import os
from collections.abc import Sequence
from typing import Any

import altair as alt

from archlab.designs.correlation import Correlations
from archlab.designs.decision import Decision
from archlab.format import count, duration, human, percent, percent_interval
from archlab.mad.scores import leaderboard
from archlab.reports import scaling_charts
from archlab.reports.axes import log_axis
from archlab.reports.charts import chart, encodings, points, spec
from archlab.reports.correlation_page import correlation_panels
from archlab.reports.html import render_page, write_page
from archlab.reports.panels import Panel, Spec, Table, draw_sections
from archlab.reports.scaling_tables import interval
from archlab.scaling.analysis.comparison import multiplier_text
from archlab.scaling.study_fit import StudyFit
from archlab.scaling.warnings import grouped
from archlab.searching.costs import DECODE_LENGTH

HEADS = (
    "architecture",
    "role",
    "MAD score in %",
    "least loss",
    "difference",
    "compute multiplier",
    "parameters",
    "decode memory",
)
MOST_ROWS = 20
"""Candidates in the table of scores."""


def write_decision(found: Decision, path: str | os.PathLike[str], *, store: str) -> None:
    """Write the page, whole or not at all; refuses a place where nothing can be written."""
    write_page(path, lambda: render_decision(found, store))


def shortlist_table(found: Decision) -> Table:
    """The shortlist: scores, losses beside the reference's, and what inference remembers."""
    budgets = {row.budget for row in found.compared}
    at = f" at {max(budgets):.3g} FLOPs" if budgets else ""
    note = (
        "Least loss: of the models trained at the largest budget, in nats a token. "
        f"Difference in loss and compute multiplier{at}, against {found.reference}, with intervals of 95\N{NO-BREAK SPACE}%: "
        "negative, and below 1, is better. "
        f"Decode memory: state of one sequence after {DECODE_LENGTH:,} tokens in bfloat16, at the width of the language model of "
        "least loss at the largest budget, whose parameters are given."
    )
    if found.fresh is not None:
        note += " Scores by seeds that had no part in the selection."
    beside = {row.architecture: row for row in found.compared}
    rows = []
    for one in found.shortlist:
        score, row = found.mad(one.label), beside.get(one.label)
        bounds = "" if score is None or score.interval is None else f" ({percent_interval(score.interval)})"
        rows.append(
            [
                one.label,
                one.role,
                "–" if score is None else percent(score.score) + bounds,
                "–" if one.loss is None else f"{one.loss:.4f}",
                "–" if row is None else interval(row.difference, "+.3f"),
                "–" if row is None or row.multiplier is None else multiplier_text(row.multiplier, ".2f"),
                "–" if one.params is None else human(one.params),
                "–" if one.decode_bytes is None else f"{human(one.decode_bytes)}B",
            ]
        )
    return Table(HEADS, rows, note, "ltrrrrrr")


def _scores(found: Decision) -> Table:
    heads, rows = leaderboard(found.scores)
    shown = [*rows[: min(MOST_ROWS, len(rows) - 1)], rows[-1]]
    left = len(rows) - len(shown)
    note = f"All candidates by the first measurement, the best first{f'; {left} more in the store' if left else ''}."
    return Table(heads, [[cell.text for cell in row] for row in shown], note)


def _score_and_state(found: Decision) -> Spec | None:
    """MAD score over carried state: the shortlist in its colours, the other candidates in grey."""
    labels = _labels(found)
    rows = [
        {
            "architecture": one.label,
            "state": one.costs.state_size,
            "score": round(100 * one.score, 2),
            "low": round(100 * (one.interval.low if one.interval else one.score), 2),
            "high": round(100 * (one.interval.high if one.interval else one.score), 2),
        }
        for one in found.scores.architectures
        if one.score is not None and one.costs.state_size
    ]
    if len(rows) < 2:
        return None
    colour, symbol, _ = encodings(labels)
    states = [one.costs.state_size for one in found.scores.architectures if one.score is not None and one.costs.state_size]
    x = alt.X("state:Q", title="state (scalars)", **log_axis(states))
    y = alt.Y("score:Q", title=f"{found.scores.mean_name} (%)", scale=alt.Scale(zero=False))
    tips: list[Any] = ["architecture:N", alt.Tooltip("state:Q", format=",d"), "score:Q"]
    others = chart([row for row in rows if row["architecture"] not in labels])
    own = chart([row for row in rows if row["architecture"] in labels])
    grey = others.mark_point(filled=True, size=40, color="gray", opacity=0.6).encode(x=x, y=y, tooltip=tips)
    bars = own.mark_rule(strokeWidth=2).encode(x=x, y=alt.Y("low:Q", scale=alt.Scale(zero=False)), y2="high:Q", color=colour)
    return spec(grey + bars + points(own, 80).encode(x=x, y=y, color=colour, shape=symbol, tooltip=tips), 260)


def _comparison(found: Decision) -> dict[str, Spec | None]:
    return scaling_charts.comparison_panels(found.fit) if isinstance(found.fit, StudyFit) else {}


def _isoflop(found: Decision) -> dict[str, Spec | None]:
    if not isinstance(found.fit, StudyFit):
        return {}
    return {laws.runs.label: scaling_charts.isoflop_panel(found.fit, laws) for laws in found.fit.laws}


PANELS: list[Panel[Decision]] = [
    Panel(
        "Decision",
        "The shortlist",
        "Candidates that were trained as language models, beside the reference.",
        table=shortlist_table,
    ),
    Panel(
        "MAD scores",
        "What all candidates can do",
        "Score over the state that the layers carry; the shortlist in colour. Bars are 95\N{NO-BREAK SPACE}% intervals.",
        lambda found: {"": _score_and_state(found)},
        table=_scores,
        legend=True,
    ),
    Panel(
        "Language models",
        "Comparison at equal compute",
        "By laws with a floor, each architecture at its best size; dashed beyond the training runs.",
        _comparison,
        legend=True,
    ),
    Panel(
        "Language models",
        "Loss over parameters at equal compute",
        "Every training run; curves are parabolas around the best size, diamonds their minima.",
        _isoflop,
        colours=lambda found: scaling_charts.budget_colours(found.fit) if isinstance(found.fit, StudyFit) else {},
    ),
    Panel(
        "What was done",
        "Stages",
        "Each command does, or continues, its stage alone; what is stored is never computed again.",
        table=lambda found: Table(
            ("stage", "computed", "time in this call", "command"),
            [[stage.name, stage.jobs, duration(stage.seconds), stage.command] for stage in found.stages],
            columns="ltlt",
        ),
    ),
    Panel(
        "What was done",
        "What was not tried",
        "Limits of this study, which another one may lift.",
        table=lambda found: Table(("left out",), [[line] for line in found.not_tried], columns="t") if found.not_tried else None,
    ),
]
"""The panels of the page, in order: a new panel is one entry."""


def render_decision(found: Decision, store: str) -> str:
    """Return the text of the page."""
    labels = _labels(found)
    sections = draw_sections(PANELS, found)
    if isinstance(found.correlation, Correlations):
        sections[-1:-1] = draw_sections(correlation_panels(found.correlation, labels), found.correlation)
    parts = (
        "Design study",
        count(len(found.scores.architectures), "candidate"),
        count(len(found.shortlist), "architecture") + " trained",
        f"reference {found.reference}",
    )
    return render_page(
        "decision.html.jinja",
        sections,
        labels,
        title=f"Design · {found.space}",
        summary=" · ".join(parts),
        headline=found.headline,
        lead=_lead(found),
        warnings=_warnings(found),
        bootstrap="",
        decision=found,
        store=store,
    )


def _labels(found: Decision) -> list[str]:
    """The shortlist in the order of the laws, which share its colours, then those without laws."""
    fitted = [laws.runs.label for laws in found.fit.laws] if isinstance(found.fit, StudyFit) else []
    return list(dict.fromkeys([*fitted, *(one.label for one in found.shortlist)]))


def _lead(found: Decision) -> str:
    remembered = {one.label: one.decode_bytes for one in found.shortlist}
    memory = remembered.get(found.winner or ""), remembered.get(found.reference)
    sentences = [
        "Candidates were scored on small synthetic tasks; language models of the best, and of the reference, were trained at "
        "equal compute and compared by scaling laws."
    ]
    if memory[0] and memory[1]:
        sentences.append(
            f"After {DECODE_LENGTH:,} tokens {found.winner} carries {human(memory[0])}B a sequence, "
            f"{found.reference} {human(memory[1])}B."
        )
    if isinstance(found.correlation, Correlations):
        sentences.append(found.correlation.headline)
    return " ".join(sentences)


def _warnings(found: Decision) -> Sequence[object]:
    """Limits of the decision, first of all that there are no laws."""
    limits: list[object] = []
    if isinstance(found.fit, str):
        limits.append(f"No scaling laws: {found.fit}")
    else:
        limits += grouped(("limits of the laws", str(one)) for one in found.fit.warnings)
        largest = max(float(laws.runs.budget.max()) for laws in found.fit.laws)
        if largest < 1e15:
            limits.append("Budgets as small as these show the method; nothing follows for models of practical size.")
    if isinstance(found.correlation, str):
        limits.append(f"No correlation of scores with losses: {found.correlation}")
    if found.fresh is None and found.scores.one_seed:
        limits.append("One seed: the order of the scores is not established, and the best was selected by them.")
    return limits
