"""The store of MAD trials."""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import JSON, Text, func, null
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.mad.trial import GRID_POINT_AND_SEED, Details, Metrics, Outcome, Trial, TrialResult, read_curve
from archlab.store import ledger
from archlab.store.ledger import AnyRow, Ledger, Lines
from archlab.store.record import NON_FINITE, Status, read_non_finite, spell_non_finite
from archlab.store.schema import trials

Record = ledger.Record[Trial, TrialResult]
OutcomeRecord = ledger.Record[Trial, Any]
"""A record whose result is an :class:`Outcome` or whole."""


class TrialStore(Ledger[Trial, TrialResult]):
    """The results database as trials see it."""

    table = trials
    description: ClassVar[str] = "trial"
    filled_by: ClassVar[str] = "archlab run SPEC"
    kind: ClassVar[str] = "mad"

    @override
    def read_job(self, description: dict[str, Any], known: dict[Any, Any]) -> Trial:
        return Trial.from_dict(description, known)

    @override
    def outcomes(
        self,
        keys: Iterable[str] | None = None,
        statuses: Iterable[Status] | None = None,
        *,
        unreadable: Lines | None = None,
    ) -> list[OutcomeRecord]:
        keys, lines = None if keys is None else list(keys), dict[str, str]()
        try:
            found = self._read_rows(_OUTCOME, _read_trial, _read_outcome, keys, statuses, lines)
        except ArchlabError:  # text that is no JSON ends the query: read row by row, it can be named; so on other databases
            return [*self.records(keys, statuses, unreadable=unreadable)]
        if unreadable is not None:
            unreadable.update(lines)
        elif lines:
            raise ArchlabError(next(iter(lines.values())))
        return found

    def details(self, chosen: Sequence[OutcomeRecord], *, unreadable: Lines) -> list[OutcomeRecord]:
        """The records with their :class:`Details`, or whole results; ``unreadable`` takes a line for each that cannot be read."""
        jobs = {record.key: record.job for record in chosen}
        try:
            return self._read_rows(_DETAILS, lambda row, _: jobs[row.key], _read_details, jobs, None, unreadable)
        except ArchlabError:  # as in outcomes
            return [*self.records(jobs, unreadable=unreadable)]

    @override
    def finish(self, job: Trial, result: TrialResult, provenance: dict[str, Any]) -> None:
        super().finish(job, result, provenance | {"costs": asdict(job.costs)})

    @override
    def result_columns(self, result: TrialResult) -> dict[str, Any]:
        values = result.to_dict()
        del values["numerators"], values["denominators"]
        values["score"] = result.score
        return {
            "status": result.status,
            "result": spell_non_finite(values),
            "numerators": _compress(result.numerators),
            "denominators": _compress(result.denominators),
        }

    @override
    def read_result(self, row: AnyRow) -> TrialResult:
        arrays = {"numerators": _decompress(row.numerators), "denominators": _decompress(row.denominators)}
        values = read_non_finite(row.result) | arrays
        values.pop("score", None)  # for those who read nothing else
        return TrialResult.from_dict(values)


_OUTCOME = [
    *(trials.c[name] for name in ("key", "status", "error", "provenance")),
    # Equal texts for trials of a kind: they are read once.
    func.json_remove(trials.c.trial, *(f"$.{name}" for name in GRID_POINT_AND_SEED), type_=Text).label("kind"),
    func.json_extract(trials.c.trial, *(f"$.{name}" for name in GRID_POINT_AND_SEED), type_=JSON).label("own"),
    # All in one list: SQLite reads the text once.
    func.json_extract(
        trials.c.result,
        *(
            f"$.{name}"
            for name in ("selected", "test", "score", "steps", "solved_step", "wall_seconds", "cpu_seconds", "program")
        ),
        type_=JSON,
    ).label("result"),
]


_DETAILS = [
    *(trials.c[name] for name in ("key", "status", "error", "numerators", "denominators")),
    null().label("provenance"),
    func.json_extract(trials.c.result, "$.curve", "$.by_length", type_=Text).label("details"),
]


def _read_trial(row: AnyRow, known: dict[Any, Any]) -> Trial:
    one: Trial | None = known.get(row.kind)
    if one is None:
        own = zip(GRID_POINT_AND_SEED, row.own, strict=True)
        one = known[row.kind] = Trial.from_dict(json.loads(row.kind) | dict(own), known)
    return one.at(*row.own)


def _read_details(row: AnyRow) -> Details:
    details = json.loads(row.details)
    if any(word in row.details for word in NON_FINITE):
        details = read_non_finite(details)
    curve, by_length = details
    lengths = tuple((length, score) for length, score in by_length or ())
    return Details(read_curve(curve), lengths, _decompress(row.numerators), _decompress(row.denominators))


def _read_outcome(row: AnyRow) -> Outcome:
    (*both, score, steps, solved_step, wall_seconds, cpu_seconds, program) = row.result
    selected, test = (Metrics(**{name: NON_FINITE.get(x, x) for name, x in found.items()}) for found in both)
    if score is None:  # an earlier version stored it by its parts only
        score = test.accuracy if json.loads(row.kind)["recipe"]["metric"] == "accuracy" else test.macro_accuracy
    score, wall_seconds, cpu_seconds = (float(NON_FINITE.get(x, x)) for x in (score, wall_seconds, cpu_seconds))
    return Outcome(row.status, steps, solved_step, selected, test, score, wall_seconds, cpu_seconds, program)


def _compress(array: NDArray[np.float32]) -> bytes:
    return zlib.compress(np.asarray(array, dtype="<f4").tobytes())


@lru_cache(maxsize=1024)  # numbers of answers are the same in every trial of a setting
def _decompress(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(zlib.decompress(data), dtype="<f4").astype(np.float32)
