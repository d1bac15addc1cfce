"""The store of MAD trials."""

import json
import re
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Text, cast
from typing_extensions import override

from archlab.mad.trial import GRID_POINT_AND_SEED, Details, Metrics, Outcome, Trial, TrialResult
from archlab.store import ledger
from archlab.store.ledger import Ledger
from archlab.store.opened import AnyRow, Location
from archlab.store.record import (
    RACED,
    Status,
    check_numbers,
    check_unchanged,
    dump_json,
    read_non_finite,
    read_provenance,
    spell_non_finite,
)
from archlab.store.runs import Lines
from archlab.store.schema import trials

Record = ledger.Record[Trial, TrialResult]
OutcomeRecord = ledger.Record[Trial, Any]
"""A record whose result is an :class:`Outcome` or whole."""


class TrialStore(Ledger[Trial, TrialResult]):
    """The results database as trials see it."""

    table = trials
    description: ClassVar[str] = "trial"
    noun: ClassVar[str] = "trial"
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
        return [*self._read_rows(_OUTCOME, _read_outcome, keys, statuses, unreadable)]

    def details(self, chosen: Sequence[OutcomeRecord], *, unreadable: Lines) -> dict[str, Details]:
        """The details of chosen results by their keys; ``unreadable`` takes a line for each that cannot be read."""
        jobs = {record.key: record.job for record in chosen}
        return dict(self._read_rows(_DETAILS, partial(_read_details, jobs), jobs, None, unreadable))

    @override
    def finish(self, job: Trial, result: TrialResult, provenance: dict[str, Any], *, instead_of: Sequence[str] = ()) -> None:
        super().finish(job, result, provenance | {"costs": asdict(job.costs)}, instead_of=instead_of)

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


class Recomputation(TrialStore):
    """A store of its own for trials that are computed again. In the store that they come from, a result stays until the new one
    takes its place."""

    def __init__(self, location: Location, source: TrialStore, records: Iterable[Record]) -> None:
        """Make the store at a location; ``records`` are those of the source whose results are replaced."""
        super().__init__(location)
        self._source = source
        self._replaced: dict[str, list[str]] = {}
        for record in records:
            self._replaced.setdefault(record.job.key, [record.job.key]).append(record.key)

    @override
    def finish(self, job: Trial, result: TrialResult, provenance: dict[str, Any], *, instead_of: Sequence[str] = ()) -> None:
        self._source.finish(job, result, provenance, instead_of=self._replaced[job.key])
        super().finish(job, result, provenance)

    @override
    def fail(self, job: Trial, error: str, provenance: dict[str, Any]) -> None:
        if self._source.claim([job], 1, RACED):  # it has no result
            self._source.fail(job, error, provenance)
            self._source.release()
        super().fail(job, error, provenance)


_OUTCOME = [
    *(trials.c[name] for name in ("key", "status", "error")),
    *(cast(trials.c[name], Text).label(name) for name in ("trial", "provenance", "result")),
]
_DETAILS = [trials.c.key, cast(trials.c.result, Text).label("result"), trials.c.numerators, trials.c.denominators]


def _read_outcome(row: AnyRow, known: dict[Any, Any]) -> OutcomeRecord:
    """A row's record. Texts that many rows have in common are read once: those of a kind of trials, of a grid point and seed,
    and of a machine; the curve is not read at all."""
    key, status, error, trial, origin, result = row
    kind, own = _split(trial, ', "learning_rate": ', ', "device": ')
    if own and own not in known:
        values = json.loads(f"{{{own[2:]}}}")
        known[own] = tuple(values.values()) if tuple(values) == GRID_POINT_AND_SEED else ()
    if known.get(own) and kind in known:
        job = known[kind].at(*known[own])
    else:
        job = known[kind] = Trial.from_dict(json.loads(trial), known)
    origin, written = _split_checksum(origin or "{}")
    common, times = _split(origin, ', "started": ', ', "costs": ')
    if common not in known:
        known[common] = read_provenance(json.loads(common))
    outcome = None if status in ("running", "failed") else _outcome(job, status, result)
    if outcome:
        check_unchanged(result, written)
    return ledger.Record(
        key=key,
        job=job,
        status=status,
        result=outcome,
        error=error,
        provenance=known[common],
        finished=times.partition('"finished": "')[2].partition('"')[0] or known[common].get("finished"),
    )


def _split(text: str, start: str, end: str) -> tuple[str, str]:
    """A JSON object's text without the members from ``start`` up to ``end``, and these; without them all of it, and nothing.

    No string in JSON can hold ``start``: it has an unescaped quotation mark.
    """
    first = text.rfind(start)
    last = text.find(end, first)
    return (text, "") if first < 0 or last < 0 else (text[:first] + text[last:], text[first:last])


def _split_checksum(text: str) -> tuple[str, int | None]:
    """A provenance's text without the checksum at its end, and that; without one all of it, as where a database sorts names,
    and writes results anew."""
    rest, _, last = text.rpartition(', "checksum": ')
    return (f"{rest}}}", int(last[:-1])) if rest and last[:-1].isdecimal() else (text, None)


def _split_curve(text: str) -> tuple[str, str]:
    """As :func:`_split` does for a result's curve, which is most of its text: a list without lists in it."""
    first = text.find(', "curve": ')
    last = text.find("]", first) + 1
    return (text, "") if first < 0 or not last else (text[:first] + text[last:], text[first:last])


def _outcome(trial: Trial, status: Any, text: str) -> Outcome:
    values = json.loads(_split_curve(text)[0])
    steps, solved = values["steps"], values["solved_step"]
    selected, test = Metrics.read(values["selected"]), Metrics.read(values["test"])
    score = float(values.get("score", getattr(test, trial.metric)))  # an earlier version left it out
    check_numbers((steps, solved or 0))
    wall, cpu = float(values["wall_seconds"]), float(values["cpu_seconds"])
    return Outcome(status, steps, solved, selected, test, score, wall, cpu, sys.intern(values.get("program", "")))


def _read_details(jobs: Mapping[str, Trial], row: AnyRow, _: object) -> tuple[str, Details]:
    text, curve = _split_curve(row.result)
    values = json.loads(text)
    curve = curve or dump_json(values["curve"])
    steps = map(int, re.findall(r'"step": (\d+)', curve))
    scores = map(float, re.findall(rf'"{jobs[row.key].metric}": "?([^",}}]+)', curve))
    lengths = tuple((length, float(score)) for length, score in values.get("by_length", ()))
    return row.key, Details([*zip(steps, scores, strict=True)], lengths, _counts(row.numerators), _counts(row.denominators))


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
