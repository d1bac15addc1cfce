"""The report of a scaling study: one HTML file that needs nothing but itself, and its runs as CSV beside it."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

from archlab.errors import ArchlabError
from archlab.files import check_place
from archlab.reports import scaling_charts as charts
from archlab.reports import scaling_text as text
from archlab.reports.html import render_page, write_page
from archlab.reports.panels import Chart, DrawnPanel, Section, Spec
from archlab.reports.provenance import environments, mixed_versions
from archlab.scaling.findings import Findings
from archlab.scaling.study import Point

COLUMNS = ("key", "architecture", "spec", "dim", "seed", "budget", "flops", "params", "params_non_embedding", "state", "tokens",
           "steps", "batch_size", "length", "learning_rate", "status", "loss", "tokens_per_second", "utilisation", "peak_bytes",
           "seconds", "epochs")  # fmt: skip


def write_scaling_report(findings: Findings, path: str | Path) -> Path:
    """Write the page to ``path``, and the runs to a CSV file of the same name; each whole or not at all.

    Returns:
        Where the CSV file is.

    Raises:
        ArchlabError: nothing can be written there, or the page has the name of the table.
    """
    table = table_beside(path)
    write_page(path, lambda: render_scaling_report(findings))
    write_page(table, lambda: runs_as_csv(findings))
    return table


def table_beside(path: str | Path) -> Path:
    """The CSV file of a page; for a look at the place before there is anything to write.

    Raises:
        ArchlabError: no page can be written there, or it has the name of its table.
    """
    check_place(Path(path))
    table = Path(path).with_suffix(".csv")
    if table == Path(path):
        raise ArchlabError(f"report {path}: the runs go to the .csv file of the page's name: give a name such as scaling.html")
    return table


def runs_as_csv(findings: Findings) -> str:
    """Every training, diverged ones included, a line each."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(point) for laws in findings.laws for point in (*laws.family.points, *laws.family.censored))
    return out.getvalue()


def render_scaling_report(findings: Findings) -> str:
    """The page as text."""
    labels = [laws.family.label for laws in findings.laws]
    points = [point for laws in findings.laws for point in (*laws.family.points, *laws.family.censored)]
    panels = _panels(findings)
    return render_page(
        "scaling.html.jinja",
        [Section(name, name, [DrawnPanel("", "", drawn, None, False, False)]) for name, drawn in panels.items()],
        labels,
        panels=panels,
        findings=findings,
        headline=headline(findings),
        warnings=[
            *findings.without.values(),
            *(note for laws in findings.laws for note in text.notes(laws)),
            *mixed_versions(point.provenance for point in points),
        ],
        environments=environments(point.provenance for point in points),
        text=text,
        first=points[0].trial,
        devices=sorted({point.trial.device for point in points}),
        runs=[_row(point) for point in points],
        budgets=sorted({point.run.budget for point in points}),
        seeds=sorted({point.run.seed for point in points}),
        statuses=Counter(point.result.status for point in points),
    )


def headline(findings: Findings) -> str:
    """What the study found, in a sentence."""
    best = {c.budget: c for c in findings.comparisons}
    if len(findings.laws) == 2 and best:
        last = best[max(best)]
        ahead, behind = (last.first, last.second) if last.difference.value >= 0 else (last.second, last.first)
        known = last.difference.low is not None and last.difference.high is not None
        clear = (last.difference.low or 0) * (last.difference.high or 0) > 0
        verb = "has the lower loss than" if clear or not known else "is not clearly apart from"
        doubt = "" if known else ", but nothing tells by how much it may be chance"
        return f"At {last.budget:.3g} FLOPs {ahead} {verb} {behind}{doubt}"
    bracketed = sum(len(laws.family.minima) for laws in findings.laws)
    groups = sum(len({p.run.budget for p in laws.family.points}) for laws in findings.laws)
    return f"{bracketed} of {groups} IsoFLOP groups have their best size bracketed"


def _panels(findings: Findings) -> dict[str, list[Chart]]:
    found: dict[str, list[Chart]] = {name: [] for name in ("isoflop", "frontier", "differences", "residuals", "state")}

    def add(section: str, title: str, spec: Spec | None) -> None:
        if spec is not None:
            found[section].append(Chart(f"{section}-{len(found[section])}", title, spec))

    for laws in findings.laws:
        add("isoflop", laws.family.label, charts.isoflop_panel(laws))
        add("residuals", laws.family.label, charts.residual_panel(laws))
    add("frontier", "least loss", charts.frontier_panel(findings))
    add("frontier", "optimal size", charts.optimum_panel(findings, "size"))
    add("frontier", "optimal data", charts.optimum_panel(findings, "tokens"))
    for laws in findings.laws[1:]:
        add("differences", laws.family.label, charts.difference_panel(findings, laws.family.label))
    add("state", "perplexity over state", charts.state_panel(findings))
    return found


def _row(point: Point) -> dict[str, Any]:
    run, result = point.run, point.result
    values = {name: getattr(run, name) for name in COLUMNS if hasattr(run, name)}
    return values | {
        "key": point.key,
        "architecture": run.label,
        "status": result.status,
        "loss": result.loss,
        "tokens_per_second": round(result.tokens_per_second, 1),
        "utilisation": round(result.utilisation, 4),
        "peak_bytes": result.peak_bytes,
        "seconds": round(result.seconds, 2),
        "epochs": round(result.epochs, 4),
    }
