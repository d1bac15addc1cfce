"""Tables of the page of scores: capacities by level, results by setting and grid point."""

import statistics
from collections import Counter, defaultdict

from archlab.architectures import Architecture
from archlab.format import percent, percent_interval, short_task
from archlab.mad.architecture_score import SettingScore
from archlab.mad.scores import Scores
from archlab.reports.panels import Table
from archlab.tasks import Task

MAX_ROWS = 300
"""Rows of the table by setting and grid point at most: the page stays small."""

GridPoint = tuple[float, float]
"""Learning rate and weight decay."""


def levels(scores: Scores) -> Table | None:
    """Capacity of every architecture in every setting that was trained at several levels, with the scores by level beneath."""
    by_architecture = [[(t.task, s) for t in a.tasks for s in t.settings] for a in scores.architectures]
    columns = [i for i, found in enumerate(zip(*by_architecture, strict=True)) if any(one.by_level for _, one in found)]
    if not columns:
        return None
    heads: list[str | tuple[str, str]] = ["architecture"]
    for i in columns:
        task, setting = next(row[i] for row in by_architecture if row[i][1].by_level)
        alone = sum(name == task for name, _ in by_architecture[0]) == 1
        head = short_task(task) if alone else str(setting.setting)
        heads.append((head, "at " + " · ".join(map(str, setting.by_level))))
    rows: list[list[str | tuple[str, str]]] = []
    for architecture, found in zip(scores.architectures, by_architecture, strict=True):
        rows.append([architecture.label, *(_capacity(found[i][1]) for i in columns)])
    return Table(heads, rows)


def _capacity(setting: SettingScore) -> str | tuple[str, str]:
    if setting.capacity is None:
        return "–"
    return f"{setting.capacity:.3g}", " · ".join(f"{100 * score:.0f}" for score in setting.by_level.values())


def settings_and_grid(scores: Scores) -> Table | None:
    """Every setting of every architecture: its score, that of each seed, and that of each grid point; None where there is one
    setting a task, one grid point and one seed, which the leaderboard shows."""
    points: dict[tuple[Architecture, Task], dict[GridPoint, list[float]]] = defaultdict(lambda: defaultdict(list))
    columns = sorted({(r.job.learning_rate, r.job.weight_decay) for r in scores.records}, key=lambda point: (-point[0], point[1]))
    settings = [(t.task, i) for t in scores.architectures[0].tasks for i in range(len(t.settings))]
    if len(columns) == 1 and scores.one_seed and len(settings) == len(scores.tasks):
        return None
    for record in scores.records:
        if record.result is not None:
            point = record.job.learning_rate, record.job.weight_decay
            points[record.job.architecture, record.job.setting][point].append(record.result.score)
    rows: list[list[str | tuple[str, str]]] = []
    for task, i in settings:
        for architecture in scores.architectures:
            found = next(t for t in architecture.tasks if t.task == task).settings[i]
            chosen = Counter((s.learning_rate, s.weight_decay) for s in found.seeds if s.score is not None)
            of_points = points[architecture.architecture, found.setting]
            rows.append(
                [
                    str(found.setting),
                    architecture.label,
                    (percent(found.score), percent_interval(found.interval)),
                    " ".join(percent(seed.score) for seed in found.seeds),
                    *(_point(of_points.get(point, []), chosen[point]) for point in columns),
                ]
            )
    left_out = len(rows) - MAX_ROWS
    heads: list[str | tuple[str, str]] = ["setting", "architecture", "score", "seeds"]
    heads += [(f"lr {rate:g}", f"weight decay {decay:g}") for rate, decay in columns]
    note = f"{left_out} rows more are in `archlab scores --json`." if left_out > 0 else ""
    return Table(heads, rows[:MAX_ROWS], note, "tl".ljust(len(heads), "r"), f"{min(len(rows), MAX_ROWS)} rows")


def _point(scores: list[float], chosen: int) -> str | tuple[str, str]:
    if not scores:
        return "–"
    mean = percent(statistics.fmean(scores))
    return (mean, f"chosen {chosen}×") if chosen else mean
