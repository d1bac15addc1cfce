"""The report: one HTML file that needs nothing but itself, and no network."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from archlab.errors import ArchlabError
from archlab.files import write_whole
from archlab.mad.comparison import differences_to_best
from archlab.mad.protocol import Protocol
from archlab.mad.scores import Scores
from archlab.reports import charts, findings
from archlab.reports.format import count, human, percent, percent_interval, points, probability, short_task, steps
from archlab.reports.provenance import environments, recipes, trial_rows

Panel = dict[str, Any]
_FILTERS = {f.__name__: f for f in (count, human, percent, percent_interval, points, probability, short_task, steps)}


def write_report(scores: Scores, path: str | Path, protocol: Protocol | None = None) -> None:
    """Write the report to ``path``, whole or not at all.

    Raises:
        ArchlabError: nothing can be written there.
    """
    write_page(path, lambda: render_report(scores, protocol))


def write_page(path: str | Path, render: Callable[[], str]) -> None:
    """Write a page to ``path``, whole or not at all; it is rendered once the path is known to be good.

    Raises:
        ArchlabError: nothing can be written there.
    """
    path = Path(path)
    check_place(path)
    page = render()
    try:
        write_whole(path, page)
    except OSError as error:
        raise ArchlabError(f"report {path}: cannot be written: {error.strerror}") from None


def check_place(path: Path) -> None:
    """Refuse a path that no file can be written to.

    Raises:
        ArchlabError: it is a directory, or there is none to write into.
    """
    if path.is_dir():
        raise ArchlabError(f"report {path}: is a directory: give a file, for example {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ArchlabError(f"report {path}: there is no directory {path.parent}: create it first")


def render_report(scores: Scores, protocol: Protocol | None = None) -> str:
    """The page as text."""
    panels = _panels(scores)
    rows, left_out = trial_rows(scores)
    return render_page(
        "report.html.jinja",
        panels,
        scores=scores,
        protocol=protocol,
        styles=[charts.style(rank) for rank in range(len(scores.architectures))],
        symbols=charts.SYMBOLS,
        findings=findings,
        warnings=findings.warnings(scores),
        differences=differences_to_best(scores),
        best=_best(scores),
        recipes=recipes(scores),
        environments=environments(record.provenance for record in scores.records),
        trials=rows,
        trials_left_out=left_out,
    )


def render_page(template: str, panels: Mapping[str, Sequence[Panel]], **values: Any) -> str:
    """A page with charts; ``panels`` are by section, each with ``id``, ``title`` and ``spec``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("archlab.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(_FILTERS)
    return environment.get_template(template).render(
        panels=panels,
        specs=_json({panel["id"]: panel["spec"] for group in panels.values() for panel in group}),
        config=_json(charts.CONFIG),
        font=charts.FONT,
        javascript=_javascript(),
        version=version("archlab"),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **values,
    )


def _panels(scores: Scores) -> dict[str, list[Panel]]:
    """Every chart by section, each with the place it is drawn in and what it shows."""
    found: dict[str, list[Panel]] = {name: [] for name in ("heat", "differences", "difficulty", "learning", "cost")}

    def add(section: str, title: str, spec: Mapping[str, Any] | None) -> None:
        if spec is not None:
            found[section].append(
                {"id": f"{section}-{len(found[section])}", "title": title, "spec": {"description": title or "scores", **spec}}
            )

    add("heat", "", charts.heat_map(scores))
    domain = charts.difference_domain(scores)
    for shown in (None, *scores.tasks):
        add("differences", shown or "MAD score (mean over tasks)", charts.difference_panel(scores, shown, domain))
    for index, task in enumerate(scores.tasks):
        settings = [x.setting for x in scores.architectures[0].tasks[index].settings]
        for knob, along in charts.difficulty_axes(settings):
            add("difficulty", f"{task}: {knob}", charts.difficulty_panel(scores, knob, along))
        add("learning", str(settings[0]), charts.learning_panel(scores, task))
    for cost in charts.COSTS:
        add("cost", charts.COSTS[cost], charts.cost_panel(scores, cost))
    return found


def _best(scores: Scores) -> dict[str, str]:
    """The best score of each task as it is written; of one architecture alone nothing is best."""
    if len(scores.architectures) == 1:
        return dict.fromkeys(scores.tasks, "")
    found = {task: [a.tasks[i].score for a in scores.architectures] for i, task in enumerate(scores.tasks)}
    return {task: percent(max((x for x in values if x is not None), default=None)) for task, values in found.items()}


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed in the version that the charts are written for."""
    import altair
    from vl_convert import javascript_bundle

    major, minor = altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    bundle: str = javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=f"{major}.{minor}")
    return bundle.replace("</script", "<\\/script")
