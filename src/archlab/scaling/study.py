"""The runs of a store as the columns that fits take, by architecture; what was censored is kept apart."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.scaling.fits import IsoFlopMinimum, isoflop_minimum
from archlab.scaling.fits.columns import Floats
from archlab.scaling.plan import LMRun
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import LMResult
from archlab.scaling.trial import LMTrial

if TYPE_CHECKING:
    from archlab.scaling.store import LanguageModelRecord

Parameters = Literal["all", "non-embedding"]
_SAME = ("corpus_hash", "tokenizer", "vocab_size", "length", "convention")


@dataclass(frozen=True)
class Point:
    """One training that has a result."""

    trial: LMTrial
    result: LMResult
    key: str
    provenance: Mapping[str, Any]
    """Machine and versions, see :func:`archlab.store.provenance.provenance`."""

    @property
    def run(self) -> LMRun:
        """What was trained."""
        return self.trial.run

    @cached_property
    def curve(self) -> tuple[Floats, Floats]:
        """Shares of the training, and the training loss there: each point of the curve is a mean over the steps up to it."""
        until = np.array([0, *(point.step for point in self.result.curve)], dtype=np.float64)
        middles = (until[:-1] + 1 + until[1:]) / 2
        return middles / self.run.steps, np.array([point.train_loss for point in self.result.curve], dtype=np.float64)


Minima = Mapping[float, IsoFlopMinimum]
"""By budget."""
_NUDGE = 1e-6
"""Nats: small enough for every fit to be linear in it, large enough for its rounding."""


class Nudged(NamedTuple):
    """The minimum of a budget with the loss of one run a little lower, and a little higher."""

    apart: float
    """How far apart the two losses are, in nats; 0 if neither has a minimum."""
    down: IsoFlopMinimum
    up: IsoFlopMinimum


@dataclass(frozen=True)
class Family:
    """The finished trainings of one architecture, a column each, and those that were censored."""

    label: str
    budget: Floats
    """Of the group that a training belongs to; ``C`` is what it took."""
    place: NDArray[np.int64]
    """Rank of its size among those of the group, censored ones included: pairs architectures."""
    seed: NDArray[np.int64]
    C: Floats
    N: Floats
    D: Floats
    loss: Floats
    state: Floats
    points: tuple[Point, ...]
    censored: tuple[Point, ...]
    """They diverged: their loss is unknown, and no fit may take it for large. A group whose best size stands next to
    them is not bracketed, for they may have been better with a smaller learning rate."""

    def strata(self) -> NDArray[np.int64]:
        """Labels within which a bootstrap draws: the cell of budget and size if every one has several seeds, else the budget."""
        budgets = np.unique(self.budget, return_inverse=True)[1]
        cells = budgets * (self.place.max(initial=0) + 1) + self.place
        return cells if len(cells) and np.unique(cells, return_counts=True)[1].min() > 1 else budgets

    @cached_property
    def minima(self) -> Minima:
        """Where the loss of each budget is least, of those that have a minimum between their sizes."""
        found = {}
        for budget in np.unique(self.budget).tolist():
            with suppress(ArchlabError):
                found[budget] = self._minimum(budget, self.loss, self.budget == budget)
        return found

    @cached_property
    def nudged(self) -> dict[int, Nudged]:
        """Of every run that a parabola was fitted to, where its minimum moves with the run's loss."""
        found = {}
        for budget, minimum in self.minima.items():
            fitted = self.fitted(budget)
            for row in np.flatnonzero(fitted).tolist():
                by = _NUDGE * (np.arange(len(self.loss)) == row)
                sides = []
                for loss in (self.loss - by, self.loss + by):
                    try:
                        sides.append(self._minimum(budget, loss, fitted, window=np.inf))
                    except ArchlabError:  # sizes that are equally good: only to one side of it there is a minimum
                        sides.append(minimum)
                found[row] = Nudged(_NUDGE * sum(side is not minimum for side in sides), *sides)
        return found

    def fitted(self, budget: float) -> NDArray[np.bool_]:
        """The rows that the parabola of a budget was fitted to."""
        minimum = self.minima[budget]
        fitted: NDArray[np.bool_] = (self.budget == budget) & (minimum.smallest <= self.N) & (minimum.largest >= self.N)
        return fitted

    def _minimum(self, budget: float, loss: Floats, rows: NDArray[np.bool_], **how: float) -> IsoFlopMinimum:
        flops = float(np.median(self.C[self.budget == budget]))
        return isoflop_minimum(flops=flops, N=self.N[rows], D=self.D[rows], loss=loss[rows], **how)

    def curves(self) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Of every point of every training curve: the row of its training, the share of it done, the training loss."""
        rows = np.repeat(np.arange(len(self.points)), [len(point.curve[0]) for point in self.points])
        shares, losses = (np.concatenate([np.zeros(0), *(point.curve[i] for point in self.points)]) for i in (0, 1))
        return rows, shares, losses

    def take(self, rows: NDArray[np.intp]) -> "Family":
        """The finished trainings of these rows, in this order; a row may come several times."""
        columns = {name: getattr(self, name)[rows] for name in ("budget", "place", "seed", "C", "N", "D", "loss", "state")}
        points = tuple(self.points[row] for row in rows)
        return Family(label=self.label, points=points, censored=self.censored, **columns)


@dataclass(frozen=True)
class Study:
    """Architectures whose losses compare: one corpus, one length, one recipe."""

    families: Mapping[str, Family]
    parameters: Parameters

    @property
    def points(self) -> Iterator[Point]:
        """Every finished training."""
        return (point for family in self.families.values() for point in family.points)


def read_study(records: Iterable["LanguageModelRecord"], parameters: Parameters = "all") -> Study:
    """The study that the records of a store make; of equal runs the latest counts, wherever it was computed.

    Raises:
        ArchlabError: there is none, or the records are of several studies: naming in what they differ.
    """
    found: dict[tuple[LMRun, LMRecipe], Point] = {}
    for record in records:
        if record.result is not None:
            trial = LMTrial.from_dict(record.run)
            found.pop((trial.run, trial.recipe), None)
            found[trial.run, trial.recipe] = Point(trial, LMResult.from_dict(record.result), record.key, record.provenance)
    if not found:
        raise ArchlabError("the store has no trained language model: `archlab scale run PLAN` trains some")
    for name in _SAME:
        _expect_same(name, {getattr(run, name) for run, _ in found})
    recipes = [recipe.to_dict() for _, recipe in found]
    for name in recipes[0]:
        _expect_same(name, {recipe[name] for recipe in recipes})
    labels = dict.fromkeys(run.label for run, _ in found)
    points = list(found.values())
    return Study({label: _family(label, [p for p in points if p.run.label == label], parameters) for label in labels}, parameters)


def _expect_same(name: str, values: set[object]) -> None:
    if len(values) > 1:
        shown = " and ".join(sorted(str(value)[:40] for value in values)[:2])
        raise ArchlabError(
            f"{name}: the store has runs with {shown}, whose losses do not compare: give each study its own --store"
        )


def _family(label: str, points: list[Point], parameters: Parameters) -> Family:
    def size(point: Point) -> int:
        return point.run.params if parameters == "all" else point.run.params_non_embedding

    sizes = {budget: sorted({size(p) for p in points if p.run.budget == budget}) for budget in {p.run.budget for p in points}}
    finished = [point for point in points if point.result.loss is not None]
    finished.sort(key=lambda p: (p.run.budget, size(p), p.run.seed))

    def floats(values: Iterable[float | None]) -> Floats:
        return np.array(list(values), dtype=np.float64)

    return Family(
        label=label,
        budget=floats(p.run.budget for p in finished),
        place=np.array([sizes[p.run.budget].index(size(p)) for p in finished], dtype=np.int64),
        seed=np.array([p.run.seed for p in finished], dtype=np.int64),
        C=floats(p.run.flops for p in finished),
        N=floats(size(p) for p in finished),
        D=floats(p.run.tokens for p in finished),
        loss=floats(p.result.loss for p in finished),
        state=floats(p.run.state for p in finished),
        points=tuple(finished),
        censored=tuple(point for point in points if point.result.loss is None),
    )
