"""The store of MAD trials."""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from sys import intern
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Text, func
from typing_extensions import override

from archlab.mad.trial import GRID_POINT_AND_SEED, Details, Metrics, Outcome, Trial, TrialResult
from archlab.store import ledger
from archlab.store.ledger import AnyRow, Ledger, Lines
from archlab.store.record import Status, read_non_finite, spell_non_finite
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
        light = self._file is not None  # other databases have other functions of JSON
        columns, read = (_OUTCOME, _read_outcome) if light else ([self.table], self._record)
        return [*self._read_rows(columns, read, keys, statuses, unreadable, self._record)]

    def details(self, chosen: Sequence[OutcomeRecord], *, unreadable: Lines) -> dict[str, Details]:
        """The details of chosen results by their keys; ``unreadable`` takes a line for each that cannot be read."""
        jobs = {record.key: record.job for record in chosen}

        def whole(row: AnyRow, _: object) -> tuple[str, Details]:
            return row.key, Details.of(jobs[row.key], self.read_result(row))

        columns, read = (_DETAILS, partial(_read_details, jobs)) if self._file else ([self.table], whole)
        return dict(self._read_rows(columns, read, jobs, None, unreadable, whole))

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


def _paths(*names: str) -> Iterator[str]:
    return (f"$.{name}" for name in names)


_OUTCOME = [
    *(trials.c[name] for name in ("key", "status", "error")),
    # Equal texts for trials of a kind, for their grid points and seeds, and for results of a machine: each is read once.
    func.json_remove(trials.c.trial, *_paths(*GRID_POINT_AND_SEED), type_=Text).label("kind"),
    func.json_extract(trials.c.trial, *_paths(*GRID_POINT_AND_SEED), type_=Text).label("own"),
    func.json_remove(trials.c.provenance, *_paths("started", "finished", "wall_seconds"), type_=Text).label("provenance"),
    func.json_extract(trials.c.provenance, "$.finished", type_=Text).label("finished"),
    # All in one list: SQLite reads the text once. As text: Python reads numbers to the last bit.
    func.json_extract(
        trials.c.result,
        *_paths(*(f"{split}.{name}" for split in ("selected", "test") for name in Metrics.__dataclass_fields__)),
        *_paths("wall_seconds", "cpu_seconds", "score", "steps", "solved_step", "program"),
        type_=Text,
    ).label("result"),
]


_DETAILS = [
    *(trials.c[name] for name in ("key", "numerators", "denominators")),
    func.json_extract(trials.c.result, "$.curve", "$.by_length", type_=Text).label("details"),
]


def _read_outcome(row: AnyRow, known: dict[Any, Any]) -> OutcomeRecord:
    key, status, error, kind, own, provenance, finished, result = row
    if own not in known:
        known[own] = json.loads(own)
    if kind not in known:
        grid_point_and_seed = dict(zip(GRID_POINT_AND_SEED, known[own], strict=True))
        known[kind] = Trial.from_dict(json.loads(kind) | grid_point_and_seed, known)
    if provenance not in known:
        known[provenance] = found if isinstance(found := json.loads(provenance or "{}"), dict) else {}
    trial = known[kind].at(*known[own])
    return ledger.Record(
        key=key,
        job=trial,
        status=status,
        result=None if status in ("running", "failed") else _outcome(trial, status, json.loads(result)),
        error=error,
        provenance=known[provenance],
        finished=finished,
    )


def _outcome(trial: Trial, status: Any, values: list[Any]) -> Outcome:
    *numbers, score, steps, solved_step, program = values
    program = program and intern(program)
    *metrics, wall_seconds, cpu_seconds = map(float, numbers)  # those that are not finite are stored as words
    selected, test = Metrics(*metrics[:3]), Metrics(*metrics[3:])
    if score is None:  # an earlier version stored it by its parts only
        score = getattr(test, trial.metric)
    return Outcome(
        status, steps, solved_step, selected, test, float(score), wall_seconds, cpu_seconds, program and intern(program)
    )


def _read_details(jobs: Mapping[str, Trial], row: AnyRow, _: object) -> tuple[str, Details]:
    metric = jobs[row.key].metric
    points, by_length = json.loads(row.details)
    curve = [(point["step"], float(point["metrics"][metric])) for point in points]
    lengths = tuple((length, float(score)) for length, score in by_length or ())
    return row.key, Details(curve, lengths, _counts(row.numerators), _counts(row.denominators))


def _compress(array: NDArray[np.float32]) -> bytes:
    return zlib.compress(np.asarray(array, dtype="<f4").tobytes())


def _decompress(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(zlib.decompress(data), dtype="<f4").astype(np.float32)


@lru_cache(maxsize=1024)  # the denominators are the same in every trial of a setting
def _counts(data: bytes) -> NDArray[Any]:
    """Numbers of answers, in a quarter of the memory where they are small whole numbers."""
    exact = _decompress(data)
    with np.errstate(invalid="ignore"):
        small = exact.astype(np.uint8)
    return small if np.array_equal(small, exact) else exact
