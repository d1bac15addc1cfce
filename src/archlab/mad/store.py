"""The store of MAD trials."""

import zlib
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.mad.trial import Metrics, Outcome, Trial, TrialResult
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
            found = self._read_rows(_OUTCOME, _read_outcome, keys, statuses, lines)
        except ArchlabError:  # text that is no JSON ends the query: read row by row, it can be named
            return [*self.records(keys, statuses, unreadable=unreadable)]
        if unreadable is not None:
            unreadable.update(lines)
        elif lines:
            raise ArchlabError(next(iter(lines.values())))
        return found

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
    *(trials.c[name] for name in ("key", "status", "trial", "error", "provenance")),
    trials.c.result["selected"].label("result"),
    trials.c.result["test"].label("test"),
    *(trials.c.result[name].as_integer().label(name) for name in ("steps", "solved_step")),
    *(trials.c.result[name].as_float().label(name) for name in ("score", "wall_seconds", "cpu_seconds")),
    trials.c.result["program"].as_string().label("program"),
]


def _read_outcome(row: AnyRow) -> Outcome:
    selected, test = (Metrics(**{name: NON_FINITE.get(x, x) for name, x in found.items()}) for found in (row.result, row.test))
    if row.score is None:  # an earlier version stored it by its parts only
        scored = test.accuracy if row.trial["recipe"]["metric"] == "accuracy" else test.macro_accuracy
    else:
        scored = float(row.score)  # SQLite gives the word, if it is no number
    return Outcome(row.status, row.steps, row.solved_step, selected, test, scored, row.wall_seconds, row.cpu_seconds, row.program)


def _compress(array: NDArray[np.float32]) -> bytes:
    return zlib.compress(np.asarray(array, dtype="<f4").tobytes())


@lru_cache(maxsize=1024)  # numbers of answers are the same in every trial of a setting
def _decompress(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(zlib.decompress(data), dtype="<f4").astype(np.float32)
