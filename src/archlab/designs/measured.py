"""Numbers of architectures to be correlated: MAD scores, and the losses of language models, own or published."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from archlab.designs.published import Outcome, Published
from archlab.designs.rank_statistics import Floats
from archlab.errors import ArchlabError, unknown
from archlab.format import short_task
from archlab.mad.architecture_score import ArchitectureScore, TaskScore
from archlab.mad.scores import Scores
from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import Resampling
from archlab.scaling.study import Minima, RunTable, Study

MEAN = "mean"
"""Name of the mean over tasks."""

Kind = Literal["mean", "task", "capacity"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number for each architecture."""

    name: str
    values: Mapping[str, float]
    """By architecture."""
    better: Literal["lower", "higher"] = "higher"
    draws: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)
    """Samples of each number with its noise, ``(draws,)``, paired between architectures; empty where the noise is not known."""
    kind: Kind = "task"
    """``mean`` over tasks or the score of one, in percent, or the ``capacity`` at one, in the unit of its levels."""

    def column(self, architectures: Iterable[str]) -> Floats:
        """The values in this order, counted so that the larger is the better: ``(architectures,)``."""
        return self._sign * np.array([self.values[name] for name in architectures])

    def noise(self, architectures: Iterable[str]) -> Floats | None:
        """The draws in this order, counted likewise: ``(draws, architectures)``; None where one has none."""
        wanted = list(architectures)
        if not wanted or not all(name in self.draws for name in wanted):
            return None
        least = min(len(self.draws[name]) for name in wanted)
        return self._sign * np.stack([self.draws[name][:least] for name in wanted], axis=1)

    @property
    def _sign(self) -> float:
        return 1.0 if self.better == "higher" else -1.0


def scores_of(scores: Scores) -> list[Measured]:
    """The mean over tasks, then every task, in percent, then the capacities at tasks of several levels; architectures without
    a complete score are left out."""
    complete = [one for one in scores.architectures if one.complete]
    columns: list[tuple[str, Kind, list[ArchitectureScore | TaskScore]]] = [(MEAN, "mean", [*complete])]
    columns += [(task, "task", [one.tasks[i] for one in complete]) for i, task in enumerate(scores.tasks)]
    measured = [
        Measured(
            name=name,
            values={one.label: 100 * cell.score for one, cell in zip(complete, cells, strict=True) if cell.score is not None},
            draws={one.label: 100 * cell.samples for one, cell in zip(complete, cells, strict=True) if cell.samples is not None},
            kind=kind,
        )
        for name, kind, cells in columns
    ]
    for i, task in enumerate(scores.tasks):
        settings = {one.label: one.tasks[i].settings for one in complete}
        found = {label: [one.capacity for one in each if one.capacity is not None] for label, each in settings.items()}
        values = {label: float(np.mean(each)) for label, each in found.items() if len(each) == len(settings[label])}
        if values:
            measured.append(Measured(name=f"{short_task(task)} capacity", values=values, kind="capacity"))
    return measured


def costs_of(scores: Scores) -> dict[str, dict[str, float]]:
    """Logarithms of state and FLOPs by architecture, for partial correlations."""
    costs = {"state": "state_size", "FLOPs": "flops"}
    return {
        name: {one.label: float(np.log(cost)) for one in scores.architectures if (cost := getattr(one.costs, field))}
        for name, field in costs.items()
    }


def published_scores(published: Published) -> list[Measured]:
    """The mean as the table states it, then every task."""
    if published.scores is None:
        raise ArchlabError(f"{published.title} has no MAD scores: give a store of trials (--store)")
    rows = published.scores.percent
    names = dict.fromkeys(name for row in rows.values() for name in row)
    columns = [MEAN, *(name for name in names if name != MEAN)]
    return [
        Measured(
            name=name, values={a: row[name] for a, row in rows.items() if name in row}, kind="mean" if name == MEAN else "task"
        )
        for name in columns
    ]


def published_outcomes(
    published: Published, *, size: str | None = None, tokens: str | None = None, metric: str | None = None
) -> list[Measured]:
    """The columns of a published table that are of this size, number of tokens and metric.

    Raises:
        ArchlabError: there is none; the message names those that there are.
    """
    chosen = list(published.outcomes)
    for field_name, wanted in (("size", size), ("tokens", tokens), ("metric", metric)):
        if wanted is not None:
            known = list(dict.fromkeys(getattr(outcome, field_name) for outcome in chosen))
            chosen = [outcome for outcome in chosen if _same(getattr(outcome, field_name), wanted)]
            if not chosen:
                raise unknown(f"{field_name} of {published.title}:", wanted, filter(None, known))
    return [_measured(outcome) for outcome in chosen]


def study_outcomes(study: Study) -> list[Measured]:
    """The least loss of every budget that two architectures have, with its noise, in nats a token."""
    found: dict[float, dict[str, RunTable]] = {}
    for label, table in study.tables.items():
        for budget in table.minima:
            found.setdefault(budget, {})[label] = table
    outcomes = []
    for budget, tables in sorted(found.items()):
        draws = {}
        for number, (label, table) in enumerate(tables.items()):
            loss = estimate(partial(_least_loss, budget), [table], Resampling())
            if loss.low is not None and loss.high is not None:
                spread = (loss.high - loss.low) / (2 * 1.96)
                draws[label] = loss.value + spread * np.random.default_rng([7, number]).standard_normal(1000)
        values = {label: table.minima[budget].loss for label, table in tables.items()}
        name = f"least loss at {budget:.3g} FLOPs"
        outcomes.append(Measured(name=name, values=values, better="lower", draws=draws))
    if not any(len(outcome.values) > 1 for outcome in outcomes):
        raise ArchlabError("the study has no budget at which the best size of two architectures is bracketed")
    return outcomes


def _least_loss(budget: float, minima: list[Minima]) -> float:
    return minima[0][budget].loss


def under_common_names(measured: Iterable[Measured], targets: Iterable[str], aliases: Mapping[str, str]) -> list[Measured]:
    """The same numbers under the names that the other side has: equal but for case and punctuation, or by an alias; refuses two
    numbers under one name."""
    known = {plain_name(target): target for target in targets}
    plain_aliases = {plain_name(name): plain_name(alias) for name, alias in aliases.items()}

    def common(name: str) -> str:
        plain = plain_name(name)
        return known.get(plain_aliases.get(plain, plain)) or known.get(plain) or name

    def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, str] = {}
        for name in values:
            if (other := found.setdefault(common(name), name)) != name:
                raise ArchlabError(f"{other} and {name} beside the losses are both {common(name)} beside the scores: match one")
        return {other: values[name] for other, name in found.items()}

    return [
        Measured(name=one.name, values=renamed(one.values), better=one.better, draws=renamed(one.draws), kind=one.kind)
        for one in measured
    ]


def _measured(outcome: Outcome) -> Measured:
    return Measured(name=outcome.name, values=outcome.values, better=outcome.better)


def _same(one: str, other: str) -> bool:
    return one.casefold().replace(" ", "") == other.casefold().replace(" ", "")


def plain_name(name: str) -> str:
    """A name in lower case without punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())
