"""Training runs of others, from a table: CSV, JSON lines or Parquet."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import checked
from archlab.scaling.fits.columns import Floats
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.store import ImportStore
from archlab.scaling.study import Parameters, Study, imported_study
from archlab.scaling.table_files import MULTIPLES, NO_VALUE, UNITS, comma_of, number_of, read_table
from archlab.store.record import SETTLED

LossUnit = Literal["nats", "bits", "perplexity"]
Flops = Literal["column", "6nd"]
GUESSES = {
    "N": ("params", "n_params", "parameters", "n_parameters", "num_params", "num_parameters", "total_params", "param_count",
          "model_size", "model_params", "n"),
    "D": ("tokens", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "total_tokens", "n_train_tokens", "tokens_seen",
          "train_tokens_seen", "num_tokens_seen", "d"),
    "C": ("flops", "train_flops", "training_flops", "total_flops", "n_flops", "num_flops", "compute", "training_compute", "c"),
    "loss": ("val_loss", "eval_loss", "validation_loss", "valid_loss", "loss_val", "final_val_loss", "loss", "test_loss",
             "final_loss", "val_perplexity", "val_ppl", "eval_perplexity", "eval_ppl", "validation_perplexity", "valid_ppl",
             "perplexity", "ppl", "val_bpb", "bpb", "bits_per_byte", "bits_per_token", "val_cross_entropy", "cross_entropy"),
    "architecture": ("architecture", "arch", "model", "model_name", "model_type", "architecture_name", "model_family", "family"),
    "seed": ("seed", "random_seed"),
    "budget": ("budget", "flops_budget", "compute_budget", "flop_budget", "budget_flops"),
}  # fmt: skip
"""Usual names of each column in lower case, with _ for what is no letter or digit; the first that a table has is taken."""
NEAR = 0.05
"""Relative distance from the middle of a budget at which FLOPs are still of it."""
_LARGEST_LOSS = 30.0
"""Nats a token above which no language model's loss is plausible: three times a uniform guess among 22,000 tokens."""
_POOR_LOSS = 7.0
"""Nats a token; where no loss is smaller, the unit is asked for."""
_STATES = ("state", "status")
"""Columns that say how a training run ended."""
_UNFINISHED = {"crashed", "failed", "killed", "running", "diverged", "preempted"}
"""States of training runs whose losses are not those at their end."""
_PLAUSIBLE_TOKENS = (1e-3, 1e8)
"""Tokens a parameter, in the median of a study."""
_PLAUSIBLE_FLOPS = 30.0
"""Largest factor between FLOPs and 6 N D, and between budgets and FLOPs, in the median of a study."""
_IN_MILLIONS = 1e5
"""Fewer parameters than this, at more tokens a parameter than this, were counted in millions, and so were fewer tokens."""


@checked
def read_runs(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    *,
    loss_unit: LossUnit | None = None,
    flops: Flops = "column",
    parameters: Parameters = "all",
) -> Study:
    """Read training runs from a table into a study, which fit, predict and report take.

    Two of parameters N, tokens D and FLOPs C are enough; the third follows from C = 6 N D. Rows without a loss are kept as
    runs without one. Runs whose FLOPs are nearly equal are of one budget, unless the table has a column of budgets.

    Args:
        path: a .csv, .tsv, .json, .jsonl or .parquet file.
        columns: names of the table's columns by N, D, C, loss, architecture, seed, budget; usual names are found without. A
            factor follows *, as in ``{"D": "tokens*1e9"}`` for billions. Several columns joined by + name an architecture
            together, as in ``{"architecture": "model+dataset"}``.
        loss_unit: of the column of losses: nats or bits a token, or perplexity; by default what its name says, else nats.
        flops: where the table has N, D and C, whether the column of FLOPs counts, or 6 N D.
        parameters: what the column of N counts.

    Raises:
        ArchlabError: a column is missing, a value is no positive number, the unit of a column cannot be right, or a row comes
            twice.
    """
    return imported_study(_Table(Path(path), columns or {}, loss_unit).runs(flops), parameters)


def import_runs(
    path: str | os.PathLike[str],
    store: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    *,
    loss_unit: LossUnit | None = None,
    flops: Flops = "column",
) -> dict[str, Any]:
    """Read a table of training runs into a store, and return what was found, JSON-ready.

    Its keys: ``columns``, ``architectures`` and ``budgets`` (number of runs of each), ``runs``, ``without_loss``, ``loss_unit``,
    ``flops`` (from where), ``flops_over_6nd`` (least, middle and largest, None if the table lacks N, D or C), and ``notes``
    (doubts about the columns). Options as for :func:`read_runs`.

    Raises:
        ArchlabError: the table is wrong, or the store has one of its training runs with other FLOPs or another budget.
    """
    table = _Table(Path(path), columns or {}, loss_unit)
    runs = table.runs(flops)
    with ImportStore(store) as opened:
        unreadable: dict[str, str] = {}
        settled = opened.records(statuses=SETTLED, unreadable=unreadable)
        known = {_without_flops(record.job): record.job for record in settled}
        for run in runs:
            if (other := known.get(_without_flops(run), run)) != run:
                raise ArchlabError(
                    f"{run.label}, {run.params:.4g} parameters, {run.tokens:.4g} tokens: store {opened.where} has it with "
                    f"{other.flops:.6g} FLOPs in budget {other.budget:.6g}, the table gives {run.flops:.6g} in {run.budget:.6g}: "
                    "give another store"
                )
        opened.finish_all([(run, run.loss) for run in runs], {"table": Path(path).name})
    by_column = "C" in table.columns and flops == "column"
    return {
        "columns": {name: str(column) for name, column in table.columns.items()},
        "architectures": dict(Counter(run.label for run in runs)),
        "budgets": dict(sorted(Counter(run.budget for run in runs).items())),
        "runs": len(runs),
        "without_loss": sum(run.loss is None for run in runs),
        "loss_unit": table.loss_unit,
        "flops": f"column {table.columns['C'].name}" if by_column else "6 N D",
        "flops_over_6nd": table.ratio,
        "notes": [*table.notes, *_doubts(runs, table), *unreadable.values()],
    }


def _without_flops(run: ImportedRun) -> ImportedRun:
    return replace(run, flops=0.0, budget=0.0)


def _doubts(runs: list[ImportedRun], table: _Table) -> Iterator[str]:
    """Tell of runs that only their losses tell apart, of names that differ little, of poor losses and of runs that failed."""
    places = Counter((run.label, run.params, run.tokens, run.seed) for run in runs if run.loss is not None)
    more = sum(number - 1 for number in places.values())
    used = {part for column in table.columns.values() for part in _parts(column.name, table.frame.columns)}
    others = [column for column in table.frame.columns if column not in used]
    if more and "seed" not in table.columns:
        yield (
            f"{more:,} training runs have the architecture, parameters and tokens of another one: if a column tells them apart, "
            "give it as seed=COLUMN or as part of architecture=COLUMN+COLUMN"
            + (f"; the table also has {', '.join(others)}" if others else "")
        )
    elif "architecture" not in table.columns and (naming := [column for column in others if table.groups(column, runs)]):
        yield (
            f"no column of architectures, so all training runs are of one, {table.stem}: if a column names several, give it as "
            f"architecture=COLUMN; the table also has {', '.join(naming)}"
        )
    alike: dict[str, list[str]] = {}
    for label in dict.fromkeys(run.label for run in runs):
        alike.setdefault(_normalised(label) or label, []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            yield f"{' and '.join(labels)} are taken for different architectures"
    least = min((run.loss for run in runs if run.loss is not None), default=0.0)
    if least > _POOR_LOSS and table.loss_unit != "perplexity":
        yield f"the least loss is {least:.3g} nats: is the unit (nats, bits, perplexity) right?"
    if {"bpb", "byte", "bytes"} & set(_normalised(table.columns["loss"].name).split("_")):
        yield f"column {table.columns['loss'].name} counts bytes: losses are in nats a byte, where tables say nats a token"
    for column in table.frame.columns:
        if _normalised(column) in _STATES:
            states = (str(state) for state, run in zip(table.frame[column], runs, strict=True) if run.loss is not None)
            unfinished = Counter(state for state in states if _normalised(state) in _UNFINISHED)
            if unfinished:
                counted = ", ".join(f"{number} {state}" for state, number in unfinished.items())
                yield f"column {column} has {counted} with losses, which count like others: leave out the rows, or their losses"


def _normalised(name: str) -> str:
    """A name in lower case, with _ for what is no letter or digit."""
    return re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")


def _parts(column: str, there: Collection[str]) -> list[str]:
    """The columns that together name an architecture, joined by + unless a column is called so."""
    return [column] if column in there else [part.strip() for part in column.split("+")]


@dataclass(frozen=True)
class Column:
    """A column of a table, and what its numbers are to be multiplied by."""

    name: str
    factor: float = 1.0
    given: bool = False
    """Whether the user gave the factor."""

    @override
    def __str__(self) -> str:
        return self.name if self.factor == 1 else f"{self.name}*{self.factor:g}".replace("e+0", "e").replace("e+", "e")

    @property
    def loss_unit(self) -> LossUnit | None:
        """The unit that the name says."""
        words = set(_normalised(self.name).split("_"))
        if words & {"ppl", "perplexity", "perplexities"}:
            return "perplexity"
        return "bits" if words & {"bit", "bits", "bpb", "bpt", "bpc"} else "nats" if words & {"nat", "nats"} else None


def find_columns(there: list[str], given: Mapping[str, str]) -> dict[str, Column]:
    """Return the table's columns by N, D, C, loss, architecture, seed and budget: those given, and usual names."""
    names: dict[str, Column] = {}
    for name, text in given.items():
        if name not in GUESSES:
            raise ArchlabError(f"columns: {name}={text}: give {', '.join(GUESSES)}")
        column = Column(text) if text in there else _with_factor(name, text)
        if not set(_parts(column.name, there) if name == "architecture" else [column.name]) <= set(there):
            raise ArchlabError(f"columns: {name}={text}: the table has {', '.join(there)}")
        if other := next((other for other, one in names.items() if one.name == column.name), None):
            raise ArchlabError(f"columns: {other}={names[other].name} and {name}={text}: give each a column of its own")
        counts = name in ("N", "D", "C", "budget")
        names[name] = replace(column, factor=_headed(column.name)[1]) if counts and not column.given else column
    used = {column.name for column in names.values()}
    left = [column for column in reversed(there) if column not in used]
    ends = [(_normalised(re.split("[./]", column)[-1]), column) for column in left if "train" not in column.lower()]
    seen = Counter(end for end, _ in ends)
    heads = {end: column for end, column in ends if seen[end] == 1}
    heads |= {head: column for column in left for head in (_headed(column)[0], _normalised(column))}
    for name, usual_names in GUESSES.items():
        found = next((heads[usual] for usual in usual_names if usual in heads), None)
        if name not in names and found is not None:
            names[name] = Column(found, _headed(found)[1] if name in ("N", "D", "C", "budget") else 1.0)
    if "loss" not in names:
        likely = [column for column in there if "loss" in column.lower()]
        raise ArchlabError(f"columns: no column of losses: give loss=COLUMN; the table has {', '.join(likely or there)}")
    if len({"N", "D", "C"} & set(names)) < 2:
        raise ArchlabError(f"columns: give two of N (parameters), D (tokens), C (FLOPs); the table has {', '.join(there)}")
    return names


def _with_factor(name: str, text: str) -> Column:
    """``tokens*1e9`` as a column and its factor."""
    column, star, factor = (part.strip() for part in text.rpartition("*"))
    if not star or name not in ("N", "D", "C", "budget"):
        return Column(text.strip())
    number = number_of(factor)
    if not 0 < number < math.inf:
        raise ArchlabError(f"columns: {name}={text}: {factor!r} is no factor: give a number, as in {name}={column}*1e9")
    return Column(column, number, given=True)


def _headed(column: str) -> tuple[str, float]:
    """The head of a column without its unit, and the factor of the unit: ``Tokens (B)`` as ``tokens`` and 1e9."""
    found = re.fullmatch(r"(.*?)[(\[{]\s*(?:in\s+)?[x×*]?(.+?)\s*[)\]}]\s*", column)
    if found:
        word, _, unit = found[2].lower().partition(" ")
        factor = MULTIPLES.get(word) if unit in UNITS else None
        factor = factor or (number_of(found[2]) if found[2][0].isdigit() else math.nan)
        return _normalised(found[1]), factor if factor > 0 else 1.0
    head, _, word = _normalised(column).rpartition("_")
    if word in MULTIPLES and (len(word) > 2 or head.removesuffix("_in") in {*GUESSES["N"], *GUESSES["D"], *GUESSES["C"]}):
        return head.removesuffix("_in"), MULTIPLES[word]
    return _normalised(column), 1.0


def group_budgets(flops: Floats) -> Floats:
    """Return the budget of each run: the median of the FLOPs within :data:`NEAR` of each other's middle, or of a few more that
    no gap divides."""
    apart = (1 + NEAR) / (1 - NEAR)
    order = np.argsort(flops, kind="stable")
    steps = flops[order][1:] / flops[order][:-1]
    waiting = np.split(order, np.flatnonzero(steps > apart) + 1)
    budgets = np.empty(len(flops))
    for group in waiting:
        parts = [group] if flops[group[-1]] <= apart**3 * flops[group[0]] else _divided(group, flops, apart)
        for part in parts:
            budgets[part] = np.median(flops[part])
    return budgets


def _divided(group: NDArray[np.intp], flops: Floats, apart: float) -> list[NDArray[np.intp]]:
    """Divide runs in the order of their FLOPs at the largest steps until each part is narrow."""
    waiting, parts = [group], []
    while waiting:
        some = waiting.pop()
        if flops[some[-1]] <= apart * flops[some[0]]:
            parts.append(some)
        else:
            cut = int(np.argmax(flops[some][1:] / flops[some][:-1])) + 1
            waiting += [some[:cut], some[cut:]]
    return parts


class _Table:
    """A table of training runs: its columns, and as numbers those of parameters, tokens, FLOPs and budgets."""

    def __init__(self, path: Path, columns: Mapping[str, str], loss_unit: LossUnit | None) -> None:
        self.stem = path.name.partition(".")[0]
        self.frame = read_table(path)
        self.asked = set(columns)
        self.columns = find_columns(list(self.frame.columns), columns)
        self.loss_unit = loss_unit or self.columns["loss"].loss_unit or "nats"
        counts = [self.columns[x].name for x in ("N", "D", "C", "budget") if x in self.columns]
        self.comma = comma_of(self.frame[counts].to_numpy().ravel(), self.frame[self.columns["loss"].name])
        self.notes: list[str] = []
        for name in ("C", "budget") if {"N", "D"} <= set(self.columns) else ():
            column = self.columns.get(name)
            if (
                column
                and name not in self.asked
                and np.isnan([number_of(cell, self.comma) for cell in self.frame[column.name]]).all()
            ):
                self.columns.pop(name)
                self.notes.append(f"column {column.name} has no numbers, so it is not taken for {name}")
        self.given = {x: self._numbers(x) for x in ("N", "D", "C", "budget") if x in self.columns}
        self.labels = self._labels()

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """Least, middle and largest C over 6 N D; None if the table lacks one of the three."""
        if not {"N", "D", "C"} <= set(self.given):
            return None
        ratio = self.given["C"] / (6 * self.given["N"] * self.given["D"])
        return float(ratio.min()), float(np.median(ratio)), float(ratio.max())

    def groups(self, column: str, runs: list[ImportedRun]) -> bool:
        """Whether a column of words has several of them, and one of them stands beside several sizes."""
        words = [str(cell).strip() for cell in self.frame[column]]
        if _normalised(column) in _STATES or any(not math.isnan(number_of(word)) for word in words):
            return False
        beside = {(word, run.params) for word, run in zip(words, runs, strict=True)}
        return 1 < len(set(words)) < len(beside)

    def _labels(self) -> list[str]:
        if "architecture" not in self.columns:
            return [self.stem] * len(self.frame)
        column = self.columns["architecture"].name
        labels = []
        for row, cells in enumerate(self.frame[_parts(column, self.frame.columns)].itertuples(index=False), start=1):
            labels.append(" ".join(" ".join("" if cell is None else str(cell) for cell in cells).split()))
            if not labels[-1]:
                raise ArchlabError(f"row {row}: {column} is empty: name its architecture")
        if "architecture" in self.asked:
            return labels
        families = [_family(label) for label in labels]
        if all(family != label for family, label in zip(families, labels, strict=True)):
            named = ", ".join(dict.fromkeys(families))
            self.notes.append(f"column {column} names sizes too: architectures are {named}; architecture={column} takes it whole")
            return families
        sizes = self.given.get("N", np.zeros(0)).tolist()
        if len(set(labels)) > 2 and len(set(sizes)) == len(set(labels)) == len(set(zip(sizes, labels, strict=False))):
            self.columns.pop("architecture")
            self.notes.append(f"column {column} names sizes, so all runs are of one architecture; architecture={column} takes it")
            return [self.stem] * len(labels)
        return labels

    def runs(self, flops: Flops) -> list[ImportedRun]:
        """Return the training runs; refuses an implausible number and a run that comes twice."""
        numbers = dict(self.given)
        if "N" not in numbers:
            numbers["N"] = numbers["C"] / (6 * numbers["D"])
        if "D" not in numbers:
            numbers["D"] = numbers["C"] / (6 * numbers["N"])
        if "C" not in numbers or flops == "6nd":
            numbers["C"] = 6 * numbers["N"] * numbers["D"]
        losses, seeds = self._losses(), self._seeds()
        budgets = self._budgets(numbers["C"])
        runs = []
        seen: dict[tuple[Any, ...], int] = {}
        for row, label in enumerate(self.labels):
            n, d, c, loss = (float(column[row]) for column in (numbers["N"], numbers["D"], numbers["C"], losses))
            found = None if math.isnan(loss) else loss
            first = seen.setdefault((label, n, d, c, found, seeds[row]), row)
            if first != row:
                raise ArchlabError(f"rows {first + 1} and {row + 1} are the same run: leave out one, or add a column of seeds")
            runs.append(ImportedRun(label, float(budgets[row]), c, n, d, found, seeds[row]))
        self._check_units(numbers["N"], numbers["D"])
        return runs

    def _cell(self, name: str, row: int) -> str:
        """A cell as refusals show it."""
        column, cell = self.columns[name].name, self.frame[self.columns[name].name].iloc[row]
        return f"row {row + 1}: {column}={'' if cell is None else str(cell)[:80]}"

    def _numbers(self, name: str) -> Floats:
        """The column as positive numbers; refuses others by row and column."""
        column = self.columns[name]
        numbers = np.array([number_of(cell, self.comma) for cell in self.frame[column.name]]) * column.factor
        wrong = np.flatnonzero(~((numbers > 0) & (numbers < math.inf)))
        if len(wrong):
            raise ArchlabError(
                f"{self._cell(name, int(wrong[0]))}: {name} takes positive numbers: correct the row or leave it out"
            )
        return numbers

    def _losses(self) -> Floats:
        """Nats a token, NaN where there is none; refuses what is no loss by row and column."""
        cells = self.frame[self.columns["loss"].name]
        numbers = np.array([number_of(cell, self.comma) for cell in cells])
        missing = np.array([str(cell).strip().lower() in NO_VALUE for cell in cells])
        with np.errstate(invalid="ignore", divide="ignore"):
            losses: Floats = {"nats": numbers, "bits": numbers * math.log(2), "perplexity": np.log(numbers)}[self.loss_unit]
        for row in np.flatnonzero(~missing).tolist():
            if not 0 < numbers[row] < math.inf:
                raise ArchlabError(f"{self._cell('loss', row)}: loss takes positive numbers: correct the row or leave it out")
            if not 0 < losses[row] <= _LARGEST_LOSS:
                raise ArchlabError(
                    f"{self._cell('loss', row)}: as {self.loss_unit} this is {losses[row]:.4g} nats a token, which no language "
                    "model has: is the unit (nats, bits, perplexity) right?"
                )
        return np.where(missing, math.nan, losses)

    def _seeds(self) -> list[int]:
        if "seed" not in self.columns:
            return [0] * len(self.frame)
        numbers = np.array([number_of(cell) for cell in self.frame[self.columns["seed"].name]])
        for row in np.flatnonzero(~((numbers % 1 == 0) & (abs(numbers) < 2**53))).tolist():
            raise ArchlabError(f"{self._cell('seed', row)}: a seed is a whole number")
        return [int(number) for number in numbers]

    def _budgets(self, flops: Floats) -> Floats:
        """FLOPs of each run's group: the column's where it has FLOPs."""
        if "budget" in self.given:
            ratio = float(np.median(self.given["budget"] / flops))
            if 1 / _PLAUSIBLE_FLOPS <= ratio <= _PLAUSIBLE_FLOPS:
                return self.given["budget"]
            column = self.columns.pop("budget")
            reason = f"column {column.name} is {ratio:.3g} times the FLOPs of the runs in the median"
            if "budget" in self.asked:
                raise ArchlabError(f"budget={column}: {reason}: leave it out, and runs of nearly equal FLOPs share a budget")
            self.notes.append(f"{reason}, so it is not taken for budgets")
        return group_budgets(flops)

    def _check_units(self, size: Floats, tokens: Floats) -> None:
        """Refuse counts in millions or billions that nothing says, unless a factor was given for one of them."""
        if any(column.given for column in self.columns.values()):
            return
        shown = ", ".join(f"{name}={self.columns[name].name}" for name in ("N", "D", "C") if name in self.columns)
        fix = "if a column counts millions or billions, say so by a factor, as in D=tokens*1e9; a factor of 1 takes it as it is"
        a_parameter = float(np.median(tokens / size))
        low, high = _PLAUSIBLE_TOKENS
        few = size.max() < _IN_MILLIONS and (a_parameter > _IN_MILLIONS or tokens.max() < _IN_MILLIONS)
        if few or not low <= a_parameter <= high:
            raise ArchlabError(
                f"{shown}: {size.max():.3g} parameters and {tokens.max():.3g} tokens at most, {a_parameter:.3g} tokens a "
                f"parameter in the median: {fix}"
            )
        if self.ratio and not 1 / _PLAUSIBLE_FLOPS <= self.ratio[1] <= _PLAUSIBLE_FLOPS:
            raise ArchlabError(f"{shown}: C is {self.ratio[1]:.3g} times 6 N D in the median: {fix}")


def _family(label: str) -> str:
    """The name of a model without its size: ``mamba-130m`` as ``mamba``."""
    rest = re.sub(r"[-_. ]*(?<![a-z0-9.])\d+(?:\.\d+)?[kmb](?![a-z0-9])", "", label, flags=re.IGNORECASE)
    return rest.strip("-_. ") or label
