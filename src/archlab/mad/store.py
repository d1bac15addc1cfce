"""The store of trials: which are done, which are being computed and by whom, and what they gave."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select

from archlab.errors import ArchlabError
from archlab.mad.trial import Trial, TrialResult
from archlab.store.ledger import AnyRow, Ledger
from archlab.store.record import RACED, Status, read_non_finite, spell_non_finite
from archlab.store.schema import runs, trials


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial as the store knows it."""

    key: str
    """The trial's key when it was computed; ``trial.key`` differs if the code has changed since."""
    trial: Trial
    status: Status
    result: TrialResult | None
    """Present if and only if the status is ``finished``, ``diverged`` or ``dropped``."""
    error: str | None
    """Why the latest attempt failed: one line, then the end of the traceback."""
    provenance: dict[str, Any]
    """Where and when the result (or the failure) came about, see :func:`archlab.store.provenance.environment`; besides
    ``started`` and ``finished`` (UTC, ISO 8601) and ``wall_seconds``. Empty while the first attempt runs."""


class Store(Ledger[Trial]):
    """The results database as trials see it, see :class:`archlab.store.ledger.Ledger`.

    A trial with a result is never computed again. A trial that is being computed belongs to an owner, a
    living process; when that process dies, others may claim the trial. Each opened store is one owner.
    """

    table = trials
    description: ClassVar[str] = "trial"
    filled_by: ClassVar[str] = "archlab run SPEC"

    def records(
        self, keys: Iterable[str] | None = None, statuses: Iterable[Status] | None = None, *, skip_unknown: bool = False
    ) -> list[Record]:
        """What is known about trials: all of them, oldest first, or those with the given keys, in that order.

        Args:
            keys: which trials; unknown keys are left out.
            statuses: which statuses; all by default.
            skip_unknown: leave out trials that this version of archlab cannot read, instead of refusing.

        Raises:
            ArchlabError: a trial's architecture, setting or recipe is unknown to this archlab.
        """
        return list(self._readable(self._rows(keys, statuses), skip_unknown))

    def finish(self, trial: Trial, result: TrialResult, provenance: dict[str, Any]) -> None:
        """Store the result of a trial; on return it is on the disk.

        A result that another owner has stored meanwhile stays.
        """
        self._settle(trial, {"status": result.status, "provenance": provenance} | result_columns(result))

    def remember_run(self, plan: dict[str, Any]) -> None:
        """Note what a run set out to compute (JSON-ready), so that scores can be shown without saying it again."""
        with self._write() as connection:
            connection.execute(insert(runs).values(plan=plan))

    def runs(self) -> list[dict[str, Any]]:
        """What the runs on this store set out to compute, oldest first."""
        with self._read() as connection:
            return [row.plan for row in connection.execute(select(runs).order_by(runs.c.id))]

    def _readable(self, rows: Iterable[AnyRow], skip_unknown: bool) -> Iterator[Record]:
        for row in rows:
            try:
                yield self._record(row)
            except ArchlabError:
                if not skip_unknown:
                    raise

    def _record(self, row: AnyRow) -> Record:
        try:
            trial = Trial.from_dict(row.trial)
        except ArchlabError as error:
            raise ArchlabError(f"store {self.where}: trial {row.key} is unknown to this archlab: {error}") from None
        return Record(
            key=row.key,
            trial=trial,
            status=row.status,
            result=result_from_columns(row.result, row.numerators, row.denominators) if row.status in RACED else None,
            error=row.error,
            provenance=row.provenance or {},
        )


def result_columns(result: TrialResult) -> dict[str, Any]:
    """The result as the columns ``result`` (JSON), ``numerators`` and ``denominators`` (bytes)."""
    values = result.to_dict()
    del values["numerators"], values["denominators"]
    return {
        "result": spell_non_finite(values),
        "numerators": _compress(result.numerators),
        "denominators": _compress(result.denominators),
    }


def result_from_columns(result: dict[str, Any], numerators: bytes, denominators: bytes) -> TrialResult:
    """The inverse of :func:`result_columns`."""
    arrays = {"numerators": _decompress(numerators), "denominators": _decompress(denominators)}
    return TrialResult.from_dict(read_non_finite(result) | arrays)


def _compress(array: NDArray[np.float32]) -> bytes:
    return zlib.compress(np.asarray(array, dtype="<f4").tobytes())


def _decompress(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(zlib.decompress(data), dtype="<f4").astype(np.float32)
