"""Faults of a table of MAD scores: means that do not match, columns that look exchanged, values below chance."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archlab.designs.published import load_published, published_names
from archlab.errors import ArchlabError
from archlab.fields import checked
from archlab.files import read_text
from archlab.mad.protocol import load_protocol

Floats = NDArray[np.float64]

BELOW_CHANCE = 0.85
"""A score below this fraction of chance is not one of a trained model."""
EXCHANGED = 2.5
"""Two columns look exchanged if each fits the place of the other better by this factor of likelihood a row, as a logarithm."""
_LEAST_SPREAD = 5.0
"""Points by which scores of a task differ at least between tables."""
_MEANS = {"mean", "average", "avg", "mad", "score", "overall"}
"""Words of which the head of the mean has at least one, and no other but those of :data:`_BESIDE_MEANS`."""
_BESIDE_MEANS = {"accuracy", "acc", "of", "over", "all", "tasks"}
_WORDS = {
    "fuzzy": "fuzzy-in-context-recall",
    "noisy": "noisy-in-context-recall",
    "compress": "compression",
    "memor": "memorization",
    "copy": "selective-copying",
    "recall": "in-context-recall",
}
"""Words in the heads of columns, the more special first."""


@dataclass(frozen=True)
class Finding:
    """Something that cannot be right."""

    kind: str
    """``mean``, ``exchanged``, ``below chance``, ``out of range``, ``repeated`` or ``missing``."""
    rows: tuple[str, ...]
    """Architectures that it is about."""
    text: str
    """The fault in one line: the value, and the right one where it is known."""


@dataclass(frozen=True)
class ScoreTable:
    """A table of MAD scores in percent."""

    architectures: tuple[str, ...]
    tasks: tuple[str, ...]
    scores: Floats
    """``(architectures, tasks)``; NaN where a cell is empty."""
    means: Floats | None
    """As the table states them; None where it has no such column."""
    rounding: float = 0.05
    """Half of the last digit of the cells."""
    rounding_of_means: float = 0.05


@checked
def check_table(path: str | os.PathLike[str]) -> list[Finding]:
    """Find what cannot be in a table of MAD scores.

    Args:
        path: a CSV or TSV file with a row for each architecture: its name in the first column, a column for each task (its name
            or short name, or a head with "fuzzy", "noisy", "compress", "memor", "copy" or "recall" in it), and perhaps the mean.
            In percent, or as fractions.

    Returns:
        What was found; empty where nothing is wrong. A table without findings may be wrong all the same.

    Raises:
        ArchlabError: the file is no such table.
    """
    return findings(read_table(path))


def findings(table: ScoreTable) -> list[Finding]:
    """All findings of a table."""
    return [*_cells(table), *_repeated(table), *_means(table), *_exchanged(table)]


def read_table(path: str | os.PathLike[str]) -> ScoreTable:
    """Read a table of MAD scores; refuses one without tasks, and cells that are no numbers, by row and column."""
    import csv

    text = read_text(Path(path), "table")
    lines = [line for line in text.splitlines() if line.strip() and not set(line.strip()) <= set("-|: ")]
    if not lines:
        raise ArchlabError(f"table {path}: it is empty")
    mark = next((mark for mark in ("\t", "|", ",") if mark in lines[0]), ",")
    rows = [
        [cell.strip(" *`") for cell in row] for row in csv.reader((line.strip().strip("|") for line in lines), delimiter=mark)
    ]
    heads, body = rows[0], rows[1:]
    tasks, mean = _columns(heads, str(path))
    for row in body:
        if len(row) != len(heads):
            raise ArchlabError(f"table {path}: row {row[0]!r} has {len(row)} cells, the head has {len(heads)}")
    names = [row[0] for row in body]
    doubled = [name for name, number in Counter(names).items() if number > 1]
    if doubled:
        raise ArchlabError(f"table {path}: {doubled[0]!r} has two rows: give each a name of its own")
    if not body:
        raise ArchlabError(f"table {path}: it has no rows below its head")
    where = [*tasks.values(), *([] if mean is None else [mean])]
    values = np.array([[_number(row[column], row[0], heads[column], str(path)) for column in where] for row in body])
    percent = 1.0 if np.nanmax(np.abs(values), initial=0.0) > 1.5 else 100.0
    return ScoreTable(
        architectures=tuple(names),
        tasks=tuple(tasks),
        scores=percent * values[:, : len(tasks)],
        means=None if mean is None else percent * values[:, -1],
        rounding=percent * _half_digit([row[column] for row in body for column in tasks.values()]),
        rounding_of_means=percent * (_half_digit([row[mean] for row in body]) if mean is not None else 0.0),
    )


def _columns(heads: Sequence[str], path: str) -> tuple[dict[str, int], int | None]:
    tasks: dict[str, int] = {}
    mean = None
    for column, head in enumerate(heads[1:], start=1):
        plain = re.sub(r"[^a-z]+", " ", head.casefold()).strip()
        task = next((task for word, task in _WORDS.items() if word in plain), None)
        if task in tasks:
            raise ArchlabError(f"table {path}: two columns are {task}: {heads[tasks[task]]!r} and {head!r}")
        if task is not None:
            tasks[task] = column
        elif (words := {*plain.split()}) & _MEANS and words <= _MEANS | _BESIDE_MEANS:
            if mean is not None:
                raise ArchlabError(f"table {path}: two columns are means: {heads[mean]!r} and {head!r}: leave out one")
            mean = column
    if len(tasks) < 2:
        raise ArchlabError(
            f"table {path}: the head {', '.join(heads)} names no two MAD tasks: name columns recall, fuzzy, copy, ..."
        )
    return tasks, mean


def _number(text: str, row: str, head: str, path: str) -> float:
    if text in ("", "-", "–", "—", "nan", "NaN"):
        return float("nan")
    try:
        number = float(text.rstrip("%").strip())
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise ArchlabError(f"table {path}: {row}, {head}: {text!r} is no number")
    return number


def _half_digit(cells: Sequence[str]) -> float:
    decimals = max((len(cell.rstrip("% ").partition(".")[2]) for cell in cells), default=0)
    return 0.5 * 10.0**-decimals


def _cells(table: ScoreTable) -> Iterator[Finding]:
    chance = _chance()
    for name, row in zip(table.architectures, table.scores, strict=True):
        for task, score in zip(table.tasks, row, strict=True):
            if np.isnan(score):
                yield Finding("missing", (name,), f"{name}, {task}: no score")
            elif not 0 <= score <= 100:
                yield Finding("out of range", (name,), f"{name}, {task}: {score:g} is no percentage")
            elif score < BELOW_CHANCE * chance[task] - table.rounding:
                guess = f"guessing gives {chance[task]:.1f} on the settings of the paper"
                yield Finding("below chance", (name,), f"{name}, {task}: {score:g} is below chance: {guess}")


def _repeated(table: ScoreTable) -> Iterator[Finding]:
    if len(table.architectures) > 2:
        for (i, one), (j, other) in combinations(enumerate(table.tasks), 2):
            if np.array_equal(table.scores[:, i], table.scores[:, j]):
                yield Finding("repeated", table.architectures, f"{one} and {other} are equal in every row: one was listed twice")
    for (i, one), (j, other) in combinations(enumerate(table.architectures), 2):
        if np.array_equal(table.scores[i], table.scores[j]):
            yield Finding("repeated", (one, other), f"{one} and {other} have the same scores in every column")


def _means(table: ScoreTable) -> Iterator[Finding]:
    if table.means is None:
        return
    tolerance = table.rounding + table.rounding_of_means + 1e-6
    computed = table.scores.mean(axis=1)
    wrong: list[int] = np.flatnonzero(
        np.abs(computed - table.means) > tolerance
    ).tolist()  # where a cell is missing it is not judged
    reasons: dict[str, list[int]] = {}
    for row in wrong:
        for reason in _explanations(table, computed, row, tolerance):
            reasons.setdefault(reason, []).append(row)
    left = {*wrong}
    for reason, rows in sorted(reasons.items(), key=lambda item: -len(item[1])):
        if len(left & {*rows}) > 1 or "mean of" in reason:
            explained = sorted(left & {*rows})
            if explained:
                left -= {*explained}
                yield Finding("mean", *_named(table, explained, computed, reason))
    for row in sorted(left):
        yield Finding("mean", *_named(table, [row], computed, ""))


def _named(table: ScoreTable, rows: Sequence[int], computed: Floats, reason: str) -> tuple[tuple[str, ...], str]:
    assert table.means is not None
    names = tuple(table.architectures[row] for row in rows)
    stated = ", ".join(f"{table.architectures[row]} {table.means[row]:g} (columns give {computed[row]:.4g})" for row in rows)
    return names, f"means that do not match the columns: {stated}" + (f": {reason}" if reason else "")


def _explanations(table: ScoreTable, computed: Floats, row: int, tolerance: float) -> Iterator[str]:
    """Reasons that would give the mean of a row."""
    assert table.means is not None
    stated, cells = table.means[row], table.scores[row]
    k = len(cells)
    for other in np.flatnonzero(np.abs(computed - stated) <= tolerance):
        if other != row:
            yield f"it is the mean of {table.architectures[other]}"
    for column, task in enumerate(table.tasks):
        if abs((cells.sum() + cells[column]) / (k + 1) - stated) <= tolerance:
            yield f"they are means over {k + 1} columns, in which {task} counts twice"
        if abs((cells.sum() - cells[column]) / (k - 1) - stated) <= tolerance:
            yield f"they are means over {k - 1} columns, without {task}"
        if abs((cells.sum() - cells[column]) / k - stated) <= tolerance:
            yield f"they are sums of {k - 1} columns, without {task}, divided by {k}"
    if abs(computed[row] / 100 - stated) <= tolerance / 100 + table.rounding_of_means:
        yield "they are fractions beside percentages: multiply them by 100"
    if abs(cells.sum() / (k + 1) - stated) <= tolerance:
        yield f"they are sums of {k} columns divided by {k + 1}"
    if abs(cells.sum() / (k - 1) - stated) <= tolerance:
        yield f"they are sums of {k} columns divided by {k - 1}"


def _exchanged(table: ScoreTable) -> Iterator[Finding]:
    """Pairs of columns of which each fits the other's place better, by the spread of scores in published tables."""
    known = _published(table)
    suspects = []
    filled: list[int] = np.flatnonzero(np.isfinite(table.scores).any(axis=0)).tolist()
    for i, j in combinations(filled, 2):
        gains = [
            np.nanmean(_likelihood(table.scores[:, column], known[there]) - _likelihood(table.scores[:, column], known[here]))
            for column, here, there in ((i, table.tasks[i], table.tasks[j]), (j, table.tasks[j], table.tasks[i]))
        ]
        if min(gains) > 0 and sum(gains) > EXCHANGED:
            suspects.append((sum(gains), i, j))
    told: set[int] = set()
    for _, i, j in sorted(suspects, reverse=True):
        if not told & {i, j}:  # a column that is somewhere else may fit several places better
            told |= {i, j}
            one, other = table.tasks[i], table.tasks[j]
            means = f"{np.nanmean(table.scores[:, i]):.1f} and {np.nanmean(table.scores[:, j]):.1f}"
            usual = f"{known[one].mean():.1f} and {known[other].mean():.1f}"
            text = f"{one} and {other} look exchanged: their means are {means}, in published tables {usual}"
            yield Finding("exchanged", table.architectures, text)


def _likelihood(scores: Floats, known: Floats) -> Floats:
    """Log-likelihood of each score under a normal distribution with the mean and the spread of the known ones."""
    spread = max(float(known.std(ddof=1)), _LEAST_SPREAD)
    density: Floats = -0.5 * ((scores - known.mean()) / spread) ** 2 - np.log(spread)
    return density


def _published(table: ScoreTable) -> dict[str, Floats]:
    """Scores by task in the published tables, without those that are this table itself."""
    found: dict[str, list[float]] = {}
    for name in published_names():
        scores = load_published(name).scores
        if scores is not None and {*scores.percent} != {*table.architectures}:
            for row in scores.percent.values():
                for task, score in row.items():
                    found.setdefault(task, []).append(score)
    found.setdefault("noisy-in-context-recall", found["in-context-recall"])
    return {task: np.array(scores) for task, scores in found.items()}


@cache
def _chance() -> dict[str, float]:
    """Mean chance over the settings of the paper's protocol, in percent, by task."""
    tasks = load_protocol("paper").tasks
    return {name: float(100 * np.mean([setting.chance for setting in plan.settings])) for name, plan in tasks.items()}
