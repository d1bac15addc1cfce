"""The scores of several architectures: as values, as documents, and as the leaderboard of terminal, notebooks and page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from archlab.format import count, human, percent, percent_interval, short_task, starred
from archlab.mad.architecture_score import ArchitectureScore, SettingScore, TaskScore
from archlab.mad.bootstrap import CONFIDENCE, Interval
from archlab.mad.spending import Spending
from archlab.mad.store import Record
from archlab.tasks import Task
from archlab.tasks.registry import counted, suite_of
from archlab.tasks.stored import UNAVAILABLE as NO_TASK

if TYPE_CHECKING:
    import pandas as pd

IntervalOver = Literal["seeds and test instances", "test instances"]
_MAX_GAPS = 4
UNAVAILABLE = "layer not available"


@dataclass(frozen=True)
class Difference:
    """The score of ``first`` less that of ``second``, on the settings and seeds that both have."""

    first: str
    second: str
    task: str | None
    """None: the MAD score."""
    mean: float
    interval: Interval
    superiority: float
    """Fraction of the bootstrap samples in which ``first`` is better; ties count half."""


@dataclass(frozen=True)
class Scores:
    """The scores of several architectures under one plan, best first; partial ones after complete ones."""

    protocol: str | None
    """Name of the protocol; None if it is not known."""
    architectures: tuple[ArchitectureScore, ...]
    tasks: tuple[str, ...]
    resamples: int
    interval_over: IntervalOver
    """The variation that intervals cover. With a single seed they say nothing about other initialisations or data."""
    reference: Task
    """The setting at which costs are stated."""
    dim: int
    spending: Spending
    records: tuple[Record, ...] = field(repr=False, compare=False)
    """Every record that was used, or that stands for what is missing."""
    differences: tuple[Difference, ...]
    """Every other architecture less the best one: paired differences of the MAD score."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing anywhere."""
        return all(architecture.complete for architecture in self.architectures)

    @property
    def one_seed(self) -> bool:
        """Whether some setting has a single seed, so that the order of the architectures is not established."""
        return self.interval_over == "test instances"

    @property
    def unavailable(self) -> list[str]:
        """The tasks that are not known: their scores are those of the store."""
        return [task.task for task in self.architectures[0].tasks if not task.available]

    @property
    def counted(self) -> tuple[str, ...]:
        """The tasks whose mean is the score of an architecture."""
        return counted(self.tasks)

    @property
    def mean_name(self) -> str:
        """Name of that mean: the MAD score, unless no task is of MAD."""
        return "MAD score" if suite_of(self.counted[0]) == "mad" else "mean"

    @property
    def chance(self) -> tuple[float | None, ...]:
        """The score of guessing on each task; None where the task is not known."""
        return tuple(task.chance for task in self.architectures[0].tasks)

    def to_frame(self) -> "pd.DataFrame":
        """One row for each architecture and setting."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"architecture": architecture.label, "task": task.task, "setting": str(setting.setting), **_setting(setting)}
                for architecture in self.architectures
                for task in architecture.tasks
                for setting in task.settings
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; unknown values are None."""
        return {
            "archlab": version("archlab"),
            "date": max((record.finished for record in self.records if record.finished), default=None),
            "protocol": self.protocol,
            "confidence": CONFIDENCE,
            "resamples": self.resamples,
            "interval_over": self.interval_over,
            "complete": self.complete,
            "dim": self.dim,
            "costs_at": {"task": self.reference.name, **self.reference.knobs()},
            "spending": asdict(self.spending),
            "tasks": list(self.tasks),
            "chance": dict(zip(self.tasks, self.chance, strict=True)),
            "architectures": [_architecture(architecture) for architecture in self.architectures],
            "differences": [_values(x, "first", "second", "mean", "superiority") | asdict(x.interval) for x in self.differences],
        }

    def _repr_html_(self) -> str:
        """The leaderboard, as notebooks show it."""
        return leaderboard_html(self)


_SEED = ("seed", "score", "missing", "key", "learning_rate", "weight_decay", "learning_curve_area", "solved_step", "diverged")


def _values(value: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _scored(score: Any, *names: str) -> dict[str, Any]:
    """The score with its interval, and more of its values."""
    bounds = asdict(score.interval) if score.interval else {"low": None, "high": None}
    return {"score": score.score, **bounds, "complete": score.complete, **_values(score, *names)}


def _setting(score: SettingScore) -> dict[str, Any]:
    rest = _values(score, "learning_curve_area", "steps_to_solve", "num_solved")
    for name, found in (("by_length", score.by_length), ("by_level", score.by_level)):
        rest |= {name: {str(at): value for at, value in found.items()}} if found else {}
    rest |= {"capacity": score.capacity} if score.by_level else {}
    return _scored(score) | {"num_seeds": len(score.seeds)} | rest


def _architecture(score: ArchitectureScore) -> dict[str, Any]:
    return {
        "architecture": str(score.architecture),
        "name": score.architecture.name,
        "available": score.available,
        **_scored(score, "num_complete", "num_settings"),
        **asdict(score.costs),
        "tasks": {
            task.task: {
                **_scored(task, "num_complete", "learning_curve_area"),
                "num_settings": len(task.settings),
                "settings": [
                    {"knobs": s.setting.knobs(), **_setting(s), "seeds": [_values(seed, *_SEED) for seed in s.seeds]}
                    for s in task.settings
                ],
            }
            for task in score.tasks
        },
    }


class Cell(NamedTuple):
    """A cell of the leaderboard."""

    text: str
    best: bool = False
    """Whether it is the best of its column; of one architecture alone nothing is."""


def leaderboard(scores: Scores, *, narrow: bool = False) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows: test scores in percent by task, the MAD score with its interval, and costs; the last row is chance.

    The template of the report counts the columns behind the tasks from the end.
    """
    tasks = [short_task(task, narrow=narrow) for task in scores.counted]
    mean = "MAD" if narrow and scores.mean_name == "MAD score" else scores.mean_name
    interval = f"{CONFIDENCE:.0%} interval"
    heads = ["architecture", *tasks, mean, interval, "params", "state", "FLOPs"]
    best = [_best([a.in_mean[i].score for a in scores.architectures]) for i in range(len(scores.counted))]
    best.append(_best([a.score for a in scores.architectures]))
    columns: list[list[TaskScore | ArchitectureScore]] = [[*a.in_mean, a] for a in scores.architectures]
    rows = [
        [
            Cell(a.label if a.available else f"{a.label} ({UNAVAILABLE})"),
            *(Cell(starred(x), x.score is not None and percent(x.score) == top) for x, top in zip(found, best, strict=True)),
            Cell(percent_interval(a.interval)),
            *map(Cell, (human(a.costs.num_params), human(a.costs.state_size), human(a.costs.flops))),
        ]
        for a, found in zip(scores.architectures, columns, strict=True)
    ]
    chance = dict(zip(scores.tasks, scores.chance, strict=True))
    guessing = [chance[task] for task in scores.counted]
    known = [one for one in guessing if one is not None]
    guessing.append(sum(known) / len(known) if len(known) == len(guessing) else None)
    rows.append([Cell("chance"), *(Cell(percent(chance)) for chance in guessing), *[Cell("")] * 4])
    return heads, rows


def other_tasks(scores: Scores) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows of the tasks that do not count: test scores in percent; the last row is chance. No heads if all count."""
    tasks = [(i, task) for i, task in enumerate(scores.tasks) if task not in scores.counted]
    if not tasks:
        return [], []
    best = {i: _best([a.tasks[i].score for a in scores.architectures]) for i, _ in tasks}
    rows = [
        [
            Cell(a.label),
            *(Cell(starred(a.tasks[i]), a.tasks[i].score is not None and percent(a.tasks[i].score) == best[i]) for i, _ in tasks),
        ]
        for a in scores.architectures
    ]
    rows.append([Cell("chance"), *(Cell(percent(scores.chance[i])) for i, _ in tasks)])
    return ["architecture", *(short_task(task) for _, task in tasks)], rows


def lengths_table(scores: Scores) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows of settings that were tested at several lengths: test scores in percent by length. No heads if none was."""
    return _table_by(scores, "by_length")


def levels_table(scores: Scores) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows of settings that were trained at several levels: test scores in percent by level, and the capacity. No heads
    if none was."""
    return _table_by(scores, "by_level", "capacity")


def _table_by(scores: Scores, name: str, *more: str) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows of the settings that have scores by ``name``, and ``more`` of their values. A setting that is alone has the
    name of its task."""
    by = [
        (short_task(task) if len(a.tasks[i].settings) == 1 else str(one.setting), a.label, one, values)
        for i, task in enumerate(scores.tasks)
        for a in scores.architectures
        for one in a.tasks[i].settings
        if (values := getattr(one, name))
    ]
    heads = sorted({head for *_, values in by for head in values})
    rows = [
        [
            *(Cell(setting), Cell(label)),
            *(Cell(percent(values[head]) if head in values else "") for head in heads),
            *(Cell(f"{getattr(one, column):.3g}") for column in more),
        ]
        for setting, label, one, values in by
    ]
    return (["setting", "architecture", *map(str, heads), *more] if by else []), rows


def leaderboard_notes(scores: Scores) -> str:
    """The lines under the leaderboard: how to read it, and what is missing."""
    setting = scores.reference
    notes = [
        f"right answers on the test split in %; intervals over {scores.interval_over}; parameters, carried state and "
        f"forward FLOPs at {setting.name}, vocabulary {setting.vocab_size}, length {setting.length}, width {scores.dim}"
    ]
    if any(a.available and a.costs.state_size is None for a in scores.architectures):
        notes.append("state ?: a layer does not say what it carries")
    if not all(a.available for a in scores.architectures):
        notes.append(f"{UNAVAILABLE}: scores are from the store; give the layer's file to see unknown costs or to train it again")
    if scores.unavailable:
        names = ", ".join(scores.unavailable)
        notes.append(f"{NO_TASK}: {names}: scores are from the store, chance is not known; give the task's file by --tasks-file")
    if scores.one_seed:
        notes.append("one seed: order not established; the interval says nothing about other initialisations or data")
    diverged = sum(a.num_diverged for a in scores.architectures)
    if diverged:
        notes.append(f"{count(diverged, 'trial')} diverged and count as chance")
    gaps = [gap for a in scores.architectures for gap in a.gaps]
    if gaps:
        partial = [f"{a.label} {a.num_complete} of {a.num_settings}" for a in scores.architectures if not a.complete]
        notes.append(f"* partial: mean over the settings and seeds that have a score; complete settings: {', '.join(partial)}")
        notes += [f"  {gap}" for gap in gaps[:_MAX_GAPS]]
        if len(gaps) > _MAX_GAPS:
            notes.append(f"  and {len(gaps) - _MAX_GAPS} more")
    return "\n".join(notes)


def leaderboard_html(scores: Scores) -> str:
    """The leaderboard as an HTML table, its notes below."""
    heads, rows = leaderboard(scores)

    def row(cells: Sequence[Cell]) -> str:
        texts = [f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text) for cell in cells]
        first, *others = texts
        return f'<tr><th style="text-align:left">{first}</th>{"".join(f"<td>{text}</td>" for text in others)}</tr>'

    head_row = "".join(f"<th>{escape(head)}</th>" for head in heads)
    notes = "<br>".join(map(escape, leaderboard_notes(scores).splitlines()))
    return f"<table><thead><tr>{head_row}</tr></thead><tbody>{''.join(map(row, rows))}</tbody></table><small>{notes}</small>"


def _best(values: Sequence[float | None]) -> str:
    """The largest value as it is written, so that equal texts are marked alike; of one alone nothing is best."""
    return percent(max((value for value in values if value is not None), default=None)) if len(values) > 1 else ""
