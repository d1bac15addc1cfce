"""The training runs of a study as columns for fits, by architecture; censored ones are kept apart."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from archlab.architectures import Architecture
from archlab.errors import ArchlabError
from archlab.scaling.fits import IsoFlopMinimum
from archlab.scaling.fits.columns import Floats
from archlab.scaling.fits.isoflop import WINDOW, NoMinimum, check_window, find_minimum
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import LMResult
from archlab.scaling.store import ImportStore, Record, StudyStore
from archlab.scaling.training_plan import LMRun
from archlab.scaling.trial import LMTrial
from archlab.store.record import SETTLED

if TYPE_CHECKING:
    import pandas as pd

Parameters = Literal["all", "non-embedding"]
_SAME = ("corpus_hash", "tokenizer", "vocab_size", "backbone", "length", "convention")


class StudyRun(Protocol):
    """A training run as fits and tables see it: one of archlab's own, or an imported one."""

    @property
    def architecture(self) -> Architecture | None:
        """The architecture; None where only its name is known."""

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """Fractions of the training run and the training loss there; both empty without a curve."""

    @property
    def reason(self) -> str:
        """The reason why there is no loss; else empty."""

    def row(self) -> dict[str, Any]:
        """Return the training run as a row of a table; the loss is None if it has none."""


@dataclass(frozen=True)
class TrainedModel:
    """A training run that has a result."""

    trial: LMTrial
    result: LMResult
    key: str
    provenance: Mapping[str, Any]
    """Machine and versions: :func:`archlab.store.provenance.provenance`."""

    @property
    def run(self) -> LMRun:
        """The training run as it was planned."""
        return self.trial.run

    @property
    def architecture(self) -> Architecture:
        """The architecture that was trained."""
        return self.run.architecture

    @property
    def reason(self) -> str:
        """The reason why it diverged; else empty."""
        return self.result.reason

    @cached_property
    def curve(self) -> tuple[Floats, Floats]:
        """Fractions of the training run, and the training loss there: each point is a mean over the steps up to it."""
        until = np.array([0, *(point.step for point in self.result.curve)], dtype=np.float64)
        middles = (until[:-1] + 1 + until[1:]) / 2
        return middles / self.run.steps, np.array([point.train_loss for point in self.result.curve], dtype=np.float64)

    def row(self) -> dict[str, Any]:
        """Return the training run as a row of a table."""
        sizes = ("spec", "dim", "seed", "budget", "flops", "params", "params_non_embedding", "state", "tokens")
        steps = ("steps", "batch_size", "length", "learning_rate")
        result = self.result
        return {
            "key": self.key,
            "architecture": self.run.label,
            **{name: getattr(self.run, name) for name in (*sizes, *steps)},
            "status": result.status,
            "loss": result.loss,
            "tokens_per_second": round(result.tokens_per_second, 1),
            "utilisation": round(result.utilisation, 4),
            "peak_bytes": result.peak_bytes,
            "seconds": round(result.seconds, 2),
            "epochs": round(result.epochs, 4),
        }


Minima = Mapping[float, IsoFlopMinimum]
"""Minima by budget."""
_STEP = 1e-6
"""Step of finite differences in nats: small enough for every fit to be linear in it, large enough for its rounding."""


@dataclass(frozen=True)
class RunTable:
    """The finished training runs of one architecture as columns, and its censored ones."""

    label: str
    budget: Floats
    """FLOPs of the IsoFLOP group of a training run; ``C`` holds the FLOPs that it took."""
    size_index: NDArray[np.int64]
    """Index of its size in the group, censored ones included; runs of two architectures with equal indices are paired."""
    seed: NDArray[np.int64]
    C: Floats
    N: Floats
    D: Floats
    loss: Floats
    state: Floats
    models: tuple[StudyRun, ...]
    censored: tuple[StudyRun, ...]
    """Training runs that diverged: their loss is unknown, and no fit may take it for large. A group whose best size stands
    next to them is not bracketed, for they may have been better with a smaller learning rate."""
    window: float = WINDOW
    """Sizes within this factor of the best one of a budget determine its parabola."""

    def strata(self) -> NDArray[np.int64]:
        """Return the strata of a bootstrap: budget and size if every size has several seeds, else the budget."""
        budgets = np.unique(self.budget, return_inverse=True)[1]
        cells = budgets * (self.size_index.max(initial=0) + 1) + self.size_index
        return cells if len(cells) and np.unique(cells, return_counts=True)[1].min() > 1 else budgets

    @cached_property
    def minima(self) -> Minima:
        """The minima of the budgets that have one between their sizes."""
        return {budget: found for budget, found in self._groups.items() if isinstance(found, IsoFlopMinimum)}

    @cached_property
    def without_minimum(self) -> Mapping[float, NoMinimum]:
        """The reasons of the other budgets."""
        return {budget: found for budget, found in self._groups.items() if isinstance(found, NoMinimum)}

    @cached_property
    def _groups(self) -> Mapping[float, IsoFlopMinimum | NoMinimum]:
        return {
            budget: self._minimum(budget, self.loss, self.budget == budget, self.window)
            for budget in np.unique(self.budget).tolist()
        }

    @cached_property
    def finite_differences(self) -> dict[int, tuple[float, IsoFlopMinimum, IsoFlopMinimum]]:
        """The minimum of a budget with the loss of one run a little lower, and a little higher, behind the distance of the two
        losses in nats (0 if neither has a minimum): by row, for every run that a parabola was fitted to."""
        differences = {}
        for budget, minimum in self.minima.items():
            fitted = self.fitted(budget)
            for row in np.flatnonzero(fitted).tolist():
                by = _STEP * (np.arange(len(self.loss)) == row)
                sides = []
                for loss in (self.loss - by, self.loss + by):
                    moved = self._minimum(budget, loss, fitted, np.inf)
                    # of two equally good sizes one is an end: there is a minimum on one side only
                    sides.append(minimum if isinstance(moved, NoMinimum) else moved)
                lower, higher = sides
                differences[row] = (_STEP * sum(side is not minimum for side in sides), lower, higher)
        return differences

    def fitted(self, budget: float) -> NDArray[np.bool_]:
        """Return the rows that the parabola of a budget was fitted to."""
        minimum = self.minima[budget]
        fitted: NDArray[np.bool_] = (self.budget == budget) & (minimum.smallest <= self.N) & (minimum.largest >= self.N)
        return fitted

    def _minimum(self, budget: float, loss: Floats, rows: NDArray[np.bool_], window: float) -> IsoFlopMinimum | NoMinimum:
        flops = float(np.median(self.C[self.budget == budget]))
        return find_minimum(flops, self.N[rows], self.D[rows], loss[rows], window)

    def curves(self) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Return row, fraction of the training run and training loss of every point of every training curve."""
        rows = np.repeat(np.arange(len(self.models)), [len(model.curve[0]) for model in self.models])
        fractions, losses = (np.concatenate([np.zeros(0), *(model.curve[i] for model in self.models)]) for i in (0, 1))
        return rows, fractions, losses

    def take(self, rows: NDArray[np.intp]) -> RunTable:
        """Return the finished training runs of these rows, in this order; a row may come several times."""
        columns = {name: getattr(self, name)[rows] for name in ("budget", "size_index", "seed", "C", "N", "D", "loss", "state")}
        models = tuple(self.models[row] for row in rows)
        return replace(self, models=models, **columns)


@dataclass(frozen=True)
class Study:
    """Architectures whose losses compare: one corpus, one length, one recipe."""

    tables: Mapping[str, RunTable]
    """By architecture."""
    parameters: Parameters
    plans: Mapping[str, tuple[int, list[LMRun]]] = field(default_factory=dict)
    """Number of training runs of a plan that was trained into the store, and those without a result, by the plan's file."""
    unreadable: tuple[str, ...] = ()
    """A line for each training run and each plan of the store that cannot be read."""

    @property
    def gaps(self) -> list[tuple[str, str]]:
        """Causes and cases of what the store lacks of the plans that were trained into it."""
        missing = [(name, total, len(runs)) for name, (total, runs) in self.plans.items() if runs]
        return [
            *(("rows that cannot be read", line) for line in self.unreadable),
            *(
                ("missing training runs", f"{n} of {total} of {name}: `archlab scale run {name}` trains them")
                for name, total, n in missing
            ),
        ]

    def with_window(self, window: float) -> Study:
        """Return the study with parabolas through the sizes within this factor of the best one of a budget."""
        check_window(window)
        return replace(self, tables={label: replace(table, window=window) for label, table in self.tables.items()})

    def learning_rate(self, run: LMRun) -> float | None:
        """Return the learning rate at which the study trained the same size at the same budget; None if it did not."""
        for model in self.tables[run.label].models if run.label in self.tables else ():
            row = model.row()
            if (row["budget"], row.get("params")) == (run.budget, run.params):
                return cast("float | None", row.get("learning_rate"))
        return None

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame with a row for each training run, diverged ones included."""
        import pandas as pd

        return pd.DataFrame([model.row() for table in self.tables.values() for model in (*table.models, *table.censored)])


def open_study(store: str | os.PathLike[str], parameters: Parameters = "all") -> Study:
    """Read the study of a store, a file or an SQLAlchemy URL; refuses a place without one, and runs that do not compare."""
    with StudyStore(store, create=False) as opened, ImportStore(store, create=False) as beside:
        unreadable: dict[str, str] = {}
        trained = opened.records(statuses=SETTLED, unreadable=unreadable)
        imported = [record.job for record in beside.records(statuses=SETTLED, unreadable=unreadable)]
        if imported and trained:
            raise ArchlabError(
                "the store has imported runs and own ones, whose losses need not compare: give each its own store (--store)"
            )
        if imported:
            return replace(imported_study(imported, parameters), unreadable=tuple(unreadable.values()))
        if unreadable and not trained:
            raise ArchlabError(next(iter(unreadable.values())))
        study = read_study(trained, parameters, opened.plans(unreadable))
        return replace(study, unreadable=tuple(unreadable.values()))


def imported_study(runs: Iterable[ImportedRun], parameters: Parameters = "all") -> Study:
    """Make a study of imported runs."""
    by_label: dict[str, list[ImportedRun]] = {}
    for run in runs:
        by_label.setdefault(run.label, []).append(run)
    return Study({label: make_table(label, some, parameters) for label, some in by_label.items()}, parameters)


def read_study(
    records: Iterable[Record], parameters: Parameters = "all", plans: Mapping[str, Iterable[LMTrial]] | None = None
) -> Study:
    """Make a study of the records of a store; of equal training runs the latest counts, wherever it was computed.

    ``plans`` are training runs that were planned, by the plan's name. Refuses runs whose losses do not compare.
    """
    models: dict[tuple[LMRun, LMRecipe], TrainedModel] = {}
    for record in records:
        if record.result is not None:
            trial = record.job
            models.pop((trial.run, trial.recipe), None)
            models[trial.run, trial.recipe] = TrainedModel(trial, record.result, record.key, record.provenance)
    if not models:
        raise ArchlabError("the store has no trained language model: `archlab scale run PLAN` trains some")
    compared = [{name: getattr(run, name) for name in _SAME} | asdict(recipe) for run, recipe in models]
    for row, (run, _) in zip(compared, models, strict=True):
        row["schedule"] = row["schedule"] if run.decay_steps is None else "decays from a trunk"
    for name in compared[0]:
        if len(values := {values[name] for values in compared}) > 1:
            shown = " and ".join(sorted(str(value)[:40] for value in values)[:2])
            raise ArchlabError(
                f"{name}: the store has runs with {shown}, whose losses do not compare: give each its own store (--store)"
            )
    if len({replace(run, learning_rate=1.0) for run, _ in models}) < len(models):
        raise ArchlabError(
            "learning_rate: the store has runs that differ only in it, as of `archlab scale tune`: give another store (--store)"
        )
    states = {}
    for name, trials in (plans or {}).items():
        planned = list(trials)
        states[name] = len(planned), [trial.run for trial in planned if (trial.run, trial.recipe) not in models]
    by_label: dict[str, list[TrainedModel]] = {}
    for model in models.values():
        by_label.setdefault(model.run.label, []).append(model)
    tables = {label: make_table(label, some, parameters) for label, some in by_label.items()}
    return Study(tables, parameters, states)


def make_table(label: str, runs: Sequence[StudyRun], parameters: Parameters) -> RunTable:
    """Make the columns of an architecture's training runs."""
    size = "params" if parameters == "all" else "params_non_embedding"
    rows = [(run, run.row()) for run in runs]
    sizes: dict[float, set[float]] = {}
    for _, row in rows:
        sizes.setdefault(row["budget"], set()).add(row[size])
    finished = sorted(
        (pair for pair in rows if pair[1]["loss"] is not None), key=lambda p: (p[1]["budget"], p[1][size], p[1]["seed"])
    )
    names = ("budget", "flops", size, "tokens", "loss", "state")
    columns: Floats = np.array([[row[name] for name in names] for _, row in finished], dtype=np.float64).reshape(-1, 6).T
    return RunTable(
        label=label,
        size_index=np.array([sorted(sizes[row["budget"]]).index(row[size]) for _, row in finished], dtype=np.int64),
        seed=np.array([row["seed"] for _, row in finished], dtype=np.int64),
        models=tuple(run for run, _ in finished),
        censored=tuple(run for run, row in rows if row["loss"] is None),
        window=WINDOW,
        **dict(zip(("budget", "C", "N", "D", "loss", "state"), map(np.ascontiguousarray, columns), strict=True)),
    )
