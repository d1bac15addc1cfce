"""The report: one HTML file that needs nothing but itself, and no network."""

import json
import os
import re
import shlex
import statistics
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError
from archlab.files import cache_folder, check_place, write_whole
from archlab.format import count, human, percent, percent_interval, points, probability, short_task, steps
from archlab.mad.architecture_score import SOLVED, TaskScore
from archlab.mad.bootstrap import CONFIDENCE, SEED
from archlab.mad.protocol import Protocol, load_protocol
from archlab.mad.scores import UNAVAILABLE, Cell, Scores, leaderboard, lengths_table, other_tasks
from archlab.reports import charts, findings
from archlab.reports.panels import Panel, Section, Spec, Table, draw_sections
from archlab.reports.provenance import environments, recipes, trial_rows
from archlab.reports.score_tables import levels, settings_and_grid
from archlab.reports.tables import difference_cells

if TYPE_CHECKING:
    from markupsafe import Markup

_UNBROKEN = 28
"""Letters up to which a word with hyphens stays on one line."""
_LONG = 16
"""Characters from which a text is said once for all charts."""


def above_chance(task: TaskScore) -> float | None:
    """The place of a score between chance (0) and 1: how dark its cell is; 0 where the interval reaches down to chance."""
    if task.score is None:
        return None
    chance = task.chance or 0.0
    low = task.interval.low if task.interval else task.score
    return 0.0 if low <= chance else (task.score - chance) / (1 - chance)


def unbroken(text: str) -> "Markup":
    """The text with its short hyphenated words each on one line, as HTML."""
    from markupsafe import Markup

    parts = re.split(r"(\s+)", text)
    whole = Markup('<span class="unbroken">{}</span>')
    return Markup("").join(whole.format(x) if "-" in x and len(x) <= _UNBROKEN else x for x in parts)


def listed(value: Any) -> Any:
    """A field's value as text: the values of a list, or none."""
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple | list) else value


_FILTERS = {
    f.__name__: f
    for f in (above_chance, count, human, listed, percent, percent_interval, points, probability, short_task, steps, unbroken)
}


def write_page(path: str | os.PathLike[str], render: Callable[[], str]) -> None:
    """Write a page to ``path``, whole or not at all; it is rendered once the path is known to be good."""
    path = Path(path)
    check_place(path)
    write_whole(path, render(), "report")


def _differences(scores: Scores) -> dict[str, Spec | None]:
    rows = charts.difference_rows(scores)
    mean = "mean over tasks" if scores.mean_name == "mean" else f"{scores.mean_name} (mean over tasks)"
    shown = {mean: None, **{task: task for task in scores.tasks}}
    return {caption: charts.difference_panel(scores, rows, task) for caption, task in shown.items()}


def _differences_table(scores: Scores) -> Table | None:
    if not scores.differences:
        return None
    heads = ["architecture", f"difference from {scores.differences[0].second}, points"]
    heads += [f"{100 * CONFIDENCE:.0f}\N{NO-BREAK SPACE}% interval", "probability of being better"]
    note = "MAD score."
    if not scores.complete:
        note += " Where a score is missing, over the settings and seeds that both architectures have."
    if not scores.one_seed:
        note += " The probability is the fraction of bootstrap samples in which the architecture is ahead."
    return Table(heads[: 3 if scores.one_seed else 4], [difference_cells(scores, x) for x in scores.differences], note)


def _difficulty(scores: Scores) -> dict[str, Spec | None]:
    return {
        f"{task.task}: {knob}": charts.difficulty_panel(scores, knob, along)
        for task in scores.architectures[0].tasks
        for knob, along in charts.difficulty_axes([x.setting for x in task.settings])
    }


def _learning_table(scores: Scores) -> Table | None:
    if all(architecture.score is None for architecture in scores.architectures):
        return None
    rows: list[list[str | tuple[str, str]]] = []
    for architecture in scores.architectures:
        rows.append([architecture.label])
        for task in architecture.tasks:
            first = task.settings[0]
            unit = " steps" if first.steps_to_solve is not None else ""
            solved = f"{steps(first.steps_to_solve)}{unit} ({first.num_solved} of {len(first.seeds)})"
            rows[-1].append((percent(task.learning_curve_area), solved))
    note = (
        "Area under the learning curve in percent of the largest possible (mean over the settings of a task). Below it the "
        "median number of steps until the first setting of the task is solved, and the number of seeds that solved it."
    )
    return Table(["architecture", *map(short_task, scores.tasks)], rows, note)


def _cells_table(found: tuple[list[str], list[list[Cell]]], columns: str = "") -> Table | None:
    heads, rows = found
    return (
        Table(heads, [[cell.text for cell in row] for row in rows], columns=columns and columns.ljust(len(heads), "r"))
        if heads
        else None
    )


PANELS: list[Panel[Scores]] = [
    Panel(
        "Other tasks",
        "Tasks that do not count in the mean",
        "Right answers on the test split in percent.",
        table=lambda scores: _cells_table(other_tasks(scores)),
    ),
    Panel(
        "Other tasks",
        "Scores by length",
        "Right answers in percent by the length of the test sequences, after training at the setting's own length.",
        table=lambda scores: _cells_table(lengths_table(scores), "ll"),
    ),
    Panel(
        "Levels",
        "Capacity, and scores by level",
        f"Capacity: how much can be remembered, in keys, copies or tokens, as the task has it, with {SOLVED:.0%} of the answers "
        "right. Beneath it right answers in percent at each level of the column's head.",
        table=levels,
    ),
    Panel(
        "Differences",
        findings.separation,
        lambda scores: (
            f"Paired differences from {scores.architectures[0].label} in percentage points, with intervals: both "
            "architectures are resampled together, the same seeds and the same test instances. Left of the dashed line "
            f"{scores.architectures[0].label} is better{'' if scores.one_seed else '; rings are single seeds'}. Each panel has a "
            "scale of its own."
        ),
        _differences,
        table=_differences_table,
    ),
    Panel(
        "Difficulty",
        "Accuracy against difficulty",
        "Score in percent as one knob of a task changes and the others stay at its base setting. Bars are intervals.",
        _difficulty,
        legend=True,
    ),
    Panel(
        "Learning curves",
        findings.solved,
        "Score on the selection split in percent against optimiser step, from chance at step 0, at the first setting of each "
        "task: the mean over seeds, and, of up to 12 architectures, each seed as a thin line. The chosen grid point of each "
        "seed; a line stays level after training stopped because the task was solved.",
        lambda scores: {str(x.settings[0].setting): charts.learning_panel(scores, x.task) for x in scores.architectures[0].tasks},
        table=_learning_table,
        legend=True,
    ),
    Panel(
        "Cost",
        findings.frontier,
        lambda scores: (
            "MAD score with its interval against the costs of an architecture, at "
            f"{scores.reference.name}, vocabulary {scores.reference.vocab_size}, length {scores.reference.length}. Dashed: the "
            "best score at no more than this cost, with the architectures that reach it. Axes are logarithmic where costs span "
            "more than a factor of four; processor seconds depend on the machine."
        ),
        lambda scores: {caption: charts.cost_panel(scores, cost) for cost, caption in charts.COSTS.items()},
        legend=True,
    ),
    Panel(
        "Settings",
        "Results by setting and grid point",
        "Test score in percent: the mean over seeds of the grid points that were chosen on the selection split, each seed, and "
        "each grid point, with the number of seeds that chose it beneath.",
        table=settings_and_grid,
    ),
]
"""The panels of the page, in order: a new panel is one entry."""


def render_report(scores: Scores, protocol: Protocol | None = None, panels: Sequence[Panel[Scores]] = PANELS) -> str:
    """The page as text."""
    rows, left_out = trial_rows(scores)
    chances = [chance for task, chance in zip(scores.tasks, scores.chance, strict=True) if task in scores.counted and chance]
    name = f" · {protocol.name}" if protocol else ""
    parts = (
        f"MAD scores{name and f' · protocol{name[2:]}'}",
        count(len(scores.architectures), "architecture"),
        count(len(scores.tasks), "task"),
        count(len(scores.records), "trial"),
        f"width {scores.dim}",
    )
    return render_page(
        "report.html.jinja",
        draw_sections(panels, scores),
        [architecture.label for architecture in scores.architectures],
        title=f"MAD scores{name}",
        summary=" · ".join(parts),
        headline=findings.ranking(scores),
        lead=findings.reading(scores),
        warnings=findings.warnings(scores),
        bootstrap=f"Bootstrap: {scores.resamples:,} resamples, seed {SEED}.",
        scores=scores,
        protocol=protocol,
        findings=findings,
        unavailable=UNAVAILABLE,
        board=leaderboard(scores)[1],
        chance=statistics.fmean(chances) if len(chances) == len(scores.counted) else None,
        repeated=repeated(scores, protocol) if protocol else "",
        recipes=recipes(scores),
        environments=environments(record.provenance for record in scores.records),
        trials=rows,
        trials_left_out=left_out,
    )


def repeated(scores: Scores, protocol: Protocol) -> str:
    """The command that asks for the trials of these scores; empty if the protocol is not one of the package as it is there."""
    for suite in ("mad", "all"):
        try:
            packaged = load_protocol(protocol.name, suite)
            asked = packaged.with_tasks([*protocol.tasks]).with_seeds(protocol.seeds)
        except ArchlabError:
            continue
        if asked == protocol and protocol.seeds == tuple(range(len(protocol.seeds))):
            specs = [a.label if a.label in CATALOGUE else str(a.architecture) for a in scores.architectures]
            words = ["archlab", "run", *specs, "--protocol", protocol.name, "--seeds", str(len(protocol.seeds))]
            words += ["--suite", suite] if suite != "mad" else []
            words += ["--tasks", ",".join(scores.tasks)] if set(scores.tasks) < set(packaged.tasks) else []
            return shlex.join(words)
    return ""


def render_page(template: str, sections: Sequence[Section], labels: Sequence[str], **values: Any) -> str:
    """A page from a template that extends ``page.html.jinja``; ``labels`` are the architectures, best first.

    Every page has the values ``title``, ``summary``, ``headline``, ``lead``, ``warnings`` and ``bootstrap`` (empty if none).
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("archlab.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(_FILTERS)
    return environment.get_template(template).render(
        sections=sections,
        labels=labels,
        styles=[charts.style(rank) for rank in range(len(labels))],
        symbols=charts.SYMBOLS,
        specs=_json(_once({name: spec for section in sections for name, spec in section.specs.items()})),
        config=_json(charts.CONFIG),
        font=charts.FONT,
        javascript=_javascript(),
        version=version("archlab"),
        command=shlex.join(["archlab", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "archlab" else "",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **values,
    )


def _once(specs: Mapping[str, Any]) -> dict[str, Any]:
    """The specs of charts with long texts and lists of texts, most of them names of architectures, said once for all charts.

    Each is {"$": index} in the ``specs`` and stands in the list ``texts``.
    """
    places: dict[str, int] = {}
    texts: list[Any] = []

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: short(item) for name, item in value.items()}
        of_texts = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
        if not (of_texts or isinstance(value, str)):
            return [short(item) for item in value] if isinstance(value, list) else value
        text = json.dumps(value)
        if len(text) < _LONG:
            return value
        if text not in places:
            places[text] = len(texts)
            texts.append(value)
        return {"$": places[text]}

    return {"specs": short(dict(specs)), "texts": texts}


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed in the version of the charts; bundling takes two seconds, so the bundle is kept."""
    import altair
    import vl_convert

    major, minor = altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    name = f"vega-{version('vl-convert-python')}-{major}.{minor}.js"
    with suppress(ArchlabError, OSError, ValueError):  # no home folder, not there yet, or damaged
        checksum, _, bundle = (cache_folder() / name).read_text(encoding="utf-8").partition("\n")
        if checksum == str(zlib.crc32(bundle.encode())):
            return bundle
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=f"{major}.{minor}")
    bundle = bundle.replace("</script", "<\\/script")
    with suppress(ArchlabError, OSError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, f"{zlib.crc32(bundle.encode())}\n{bundle}")
    return bundle
