"""Training runs of others, from a table: CSV, JSON lines or Parquet."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from archlab.errors import ArchlabError
from archlab.fields import checked
from archlab.scaling.fits.columns import Floats
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.store import ImportStore
from archlab.scaling.study import Parameters, Study, imported_study
from archlab.store.record import SETTLED

if TYPE_CHECKING:
    import pandas as pd

LossUnit = Literal["nats", "bits", "perplexity"]
Flops = Literal["column", "6nd"]
GUESSES = {
    "N": ("n", "params", "n_params", "parameters", "n_parameters", "num_params", "num_parameters", "model_size", "model_params"),
    "D": ("d", "tokens", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "total_tokens"),
    "C": ("c", "flops", "train_flops", "training_flops", "total_flops", "compute"),
    "loss": ("loss", "val_loss", "eval_loss", "validation_loss", "valid_loss", "test_loss", "final_loss"),
    "architecture": ("architecture", "arch", "model", "model_name", "model_type"),
    "seed": ("seed",),
    "budget": ("budget", "flops_budget", "compute_budget"),
}
"""Usual names of each column in lower case, with _ for what is no letter or digit; the first that a table has is taken."""
NEAR = 0.05
"""FLOPs that follow each other by less than this, relative, are of one budget."""
_LARGEST_LOSS = 30.0
"""Nats a token above which no language model's loss is plausible: three times a uniform guess among 22,000 tokens."""


@checked
def read_runs(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    *,
    loss_unit: LossUnit = "nats",
    flops: Flops = "column",
    parameters: Parameters = "all",
) -> Study:
    """Read training runs from a table into a study, which fit, predict and report take.

    Two of parameters N, tokens D and FLOPs C are enough; the third follows from C = 6 N D. Rows without a loss are kept as
    runs without one. Runs whose FLOPs are nearly equal are of one budget, unless the table has a column of budgets.

    Args:
        path: a .csv, .jsonl or .parquet file.
        columns: names of the table's columns by N, D, C, loss, architecture, seed, budget; usual names are found without. Several
            columns joined by + name an architecture together, as in ``{"architecture": "model+dataset"}``.
        loss_unit: of the column of losses: nats or bits a token, or perplexity.
        flops: where the table has N, D and C, whether the column of FLOPs counts, or 6 N D.
        parameters: what the column of N counts.

    Raises:
        ArchlabError: a column is missing, a value is no positive number, or a row comes twice.
    """
    return imported_study(_Table(Path(path), columns or {}).runs(loss_unit, flops), parameters)


def import_runs(
    path: str | os.PathLike[str],
    store: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    *,
    loss_unit: LossUnit = "nats",
    flops: Flops = "column",
) -> dict[str, Any]:
    """Read a table of training runs into a store, and return what was found, JSON-ready.

    Its keys: ``columns``, ``architectures`` and ``budgets`` (number of runs of each), ``runs``, ``without_loss``, ``flops`` (from
    where), ``flops_over_6nd`` (least, middle and largest, None if the table lacks N, D or C), and ``notes`` (doubts about the
    columns). Options as for :func:`read_runs`.

    Raises:
        ArchlabError: the table is wrong, or the store has one of its training runs with other FLOPs or another budget.
    """
    table = _Table(Path(path), columns or {})
    runs = table.runs(loss_unit, flops)
    with ImportStore(store) as opened:
        known = {_without_flops(record.job): record.job for record in opened.records(statuses=SETTLED)}
        for run in runs:
            if (other := known.get(_without_flops(run), run)) != run:
                raise ArchlabError(
                    f"{run.label}, {run.params:.4g} parameters, {run.tokens:.4g} tokens: store {opened.where} has it with "
                    f"{other.flops:.6g} FLOPs in budget {other.budget:.6g}, the table gives {run.flops:.6g} in {run.budget:.6g}: "
                    "give another store"
                )
        opened.finish_all(((run, run.loss) for run in runs), {"table": Path(path).name})
    by_column = "C" in table.names and flops == "column"
    return {
        "columns": table.names,
        "architectures": dict(Counter(run.label for run in runs)),
        "budgets": dict(sorted(Counter(run.budget for run in runs).items())),
        "runs": len(runs),
        "without_loss": sum(run.loss is None for run in runs),
        "flops": f"column {table.names['C']}" if by_column else "6 N D",
        "flops_over_6nd": table.ratio,
        "notes": [*table.notes, *_mixed(runs, table)],
    }


def _without_flops(run: ImportedRun) -> ImportedRun:
    return replace(run, flops=0.0, budget=0.0)


def _mixed(runs: list[ImportedRun], table: _Table) -> Iterator[str]:
    """Tell of runs that only their losses tell apart, as where a column that names studies or settings was not given."""
    places = Counter((run.label, run.params, run.tokens, run.seed) for run in runs if run.loss is not None)
    more = sum(number - 1 for number in places.values())
    if more and "seed" not in table.names:
        used = {part for column in table.names.values() for part in _parts(column, table.frame.columns)}
        others = ", ".join(str(column) for column in table.frame.columns if column not in used)
        yield (
            f"{more:,} training runs have the architecture, parameters and tokens of another one: if a column tells them apart, "
            f"give it as seed=COLUMN or as part of architecture=COLUMN+COLUMN{f'; the table also has {others}' if others else ''}"
        )


def _parts(column: str, there: Collection[str]) -> list[str]:
    """The columns that together name an architecture, joined by + unless a column is called so."""
    return [column] if column in there else column.split("+")


def find_columns(there: list[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the table's columns by N, D, C, loss, architecture, seed and budget: those given, and usual names."""
    for name, column in given.items():
        if name not in GUESSES:
            raise ArchlabError(f"columns: {name}={column}: give {', '.join(GUESSES)}")
        if not set(_parts(column, there) if name == "architecture" else [column]) <= set(there):
            raise ArchlabError(f"columns: {name}={column}: the table has {', '.join(there)}")
    lower = {re.sub("[^a-z0-9]+", "_", column.lower()).strip("_"): column for column in reversed(there)}
    guessed = {
        name: next(lower[usual] for usual in usual_names if usual in lower)
        for name, usual_names in GUESSES.items()
        if name not in given and any(usual in lower for usual in usual_names)
    }
    names = {**{name: column for name, column in guessed.items() if column not in given.values()}, **given}
    if "loss" not in names:
        likely = [column for column in there if "loss" in column.lower()]
        raise ArchlabError(f"columns: no column of losses: give loss=COLUMN; the table has {', '.join(likely or there)}")
    if len({"N", "D", "C"} & set(names)) < 2:
        raise ArchlabError(f"columns: give two of N (parameters), D (tokens), C (FLOPs); the table has {', '.join(there)}")
    return names


def group_budgets(flops: Floats) -> Floats:
    """Return the budget of each run: the median of the FLOPs that follow each other by less than :data:`NEAR`."""
    order = np.argsort(flops, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(flops[order]) > NEAR * flops[order][:-1]) + 1)
    budgets = np.empty(len(flops))
    for group in groups:
        budgets[group] = np.median(flops[group])
    return budgets


class _Table:
    """A table of training runs: its columns, and as numbers those of parameters, tokens, FLOPs and budgets."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self.stem = path.stem
        self.frame = _read(path)
        self.names = find_columns(list(self.frame.columns), columns)
        self.given = {x: _numbers(self.frame, self.names[x], x) for x in ("N", "D", "C", "budget") if x in self.names}
        self.notes: list[str] = []
        if "architecture" in self.names and "architecture" not in columns and "N" in self.given:
            sizes = self.frame[self.names["architecture"]].astype(str).groupby(self.given["N"]).nunique()
            labels = self.frame[self.names["architecture"]].nunique()
            if labels > 2 and labels == len(sizes) and sizes.max() == 1:
                name = self.names.pop("architecture")
                self.notes.append(f"column {name} names sizes, so all runs are of one architecture; architecture={name} takes it")

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """Least, middle and largest C over 6 N D; None if the table lacks one of the three."""
        if not {"N", "D", "C"} <= set(self.given):
            return None
        ratio = self.given["C"] / (6 * self.given["N"] * self.given["D"])
        return float(ratio.min()), float(np.median(ratio)), float(ratio.max())

    def _labels(self) -> list[str]:
        column = self.names.get("architecture")
        if column is None:
            return [self.stem] * len(self.frame)
        parts = _parts(column, self.frame.columns)
        return [" ".join(row) for row in self.frame[parts].astype(str).itertuples(index=False)]

    def runs(self, loss_unit: LossUnit, flops: Flops) -> list[ImportedRun]:
        """Return the training runs; refuses an implausible loss and a run that comes twice."""
        frame, names, numbers = self.frame, self.names, dict(self.given)
        labels = self._labels()
        if "N" not in numbers:
            numbers["N"] = numbers["C"] / (6 * numbers["D"])
        if "D" not in numbers:
            numbers["D"] = numbers["C"] / (6 * numbers["N"])
        if "C" not in numbers or flops == "6nd":
            numbers["C"] = 6 * numbers["N"] * numbers["D"]
        losses = _numbers(frame, names["loss"], "loss", missing=True)
        losses = {"nats": losses, "bits": losses * math.log(2), "perplexity": np.log(losses)}[loss_unit]
        implausible = np.flatnonzero((losses > _LARGEST_LOSS) | (losses <= 0))
        if len(implausible):
            row = implausible[0]
            raise ArchlabError(
                f"row {row + 1}: {names['loss']}={frame[names['loss']].iloc[row]}: as {loss_unit} this is {losses[row]:.4g} nats "
                "a token, which no language model has: is the unit (nats, bits, perplexity) right?"
            )
        seeds = _seeds(frame, names["seed"]) if "seed" in names else [0] * len(frame)
        budgets = numbers["budget"] if "budget" in numbers else group_budgets(numbers["C"])
        runs = []
        seen: dict[tuple[Any, ...], int] = {}
        for row, label in enumerate(labels):
            n, d, c, loss = (float(column[row]) for column in (numbers["N"], numbers["D"], numbers["C"], losses))
            found = None if math.isnan(loss) else loss
            first = seen.setdefault((label, n, d, c, found, seeds[row]), row)
            if first != row:
                raise ArchlabError(f"rows {first + 1} and {row + 1} are the same run: leave out one, or add a column of seeds")
            runs.append(ImportedRun(label, float(budgets[row]), c, n, d, found, seeds[row]))
        return runs


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    readers: dict[str, Any] = {
        ".csv": lambda: pd.read_csv(path, dtype=str, keep_default_na=False),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype=False, convert_dates=False),
        ".parquet": lambda: pd.read_parquet(path),
    }
    if path.suffix not in readers:
        raise ArchlabError(f"{path}: give a .csv, .jsonl or .parquet file")
    try:
        frame: pd.DataFrame = readers[path.suffix]()
    except ImportError:
        raise ArchlabError(f"{path}: Parquet needs pyarrow: pip install 'archlab[hf]', or save the table as CSV") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else ""
        raise ArchlabError(f"{path}: cannot be read: {reason or ' '.join(str(error).split())[:200]}") from None
    if frame.empty:
        raise ArchlabError(f"{path}: the table has no rows")
    return frame


def _numbers(frame: pd.DataFrame, column: str, name: str, missing: bool = False) -> Floats:
    """The column as positive numbers; NaN for an empty cell if it may be missing. Refuses others by row and column."""
    numbers = np.full(len(frame), np.nan)
    for row, value in enumerate(frame[column]):
        if missing and (value is None or value == "" or (isinstance(value, str) and value.lower() == "nan") or value != value):
            continue
        try:
            numbers[row] = float(value)
        except (TypeError, ValueError):
            numbers[row] = math.nan
        if not 0 < numbers[row] < math.inf:
            raise ArchlabError(f"row {row + 1}: {column}={value}: {name} takes positive numbers: correct the row or leave it out")
    return numbers


def _seeds(frame: pd.DataFrame, column: str) -> list[int]:
    seeds = []
    for row, value in enumerate(frame[column]):
        try:
            seeds.append(int(float(value)))
        except (TypeError, ValueError, OverflowError):
            raise ArchlabError(f"row {row + 1}: {column}={value}: a seed is a whole number") from None
    return seeds
