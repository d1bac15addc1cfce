"""A table of jobs: which are done, which are being computed and by whom."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    Table,
    and_,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy import inspect as inspect_database
from sqlalchemy.exc import IntegrityError

from archlab.store.database import outlasting
from archlab.store.opened import AnyRow, Location, OpenedStore
from archlab.store.owner import Owner
from archlab.store.record import (
    SETTLED,
    STATUSES,
    VERBATIM,
    Status,
    check_columns,
    check_unchanged,
    checksum,
    dump_json,
    read_provenance,
)
from archlab.store.runs import Lines, RunStore, living_owners
from archlab.store.schema import owners, runs


class Described(Protocol):
    """A value that the store can hold and find again."""

    @property
    def key(self) -> str:
        """Hash of everything that can change the result, and of nothing else."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description."""


J = TypeVar("J", bound=Described)
R = TypeVar("R")
Item = TypeVar("Item")

_FRESH_SECONDS = 5.0
"""A claim sends a heartbeat first if the last one is older."""
_FEW = 16
_CHUNK = 500  # keys in one statement, whose number of parameters databases limit; rows that are read at once


@dataclass(kw_only=True, slots=True)  # frozen ones take three times as long to make
class Record(Generic[J, R]):
    """One job as the store knows it."""

    key: str
    """The job's key when it was computed; ``job.key`` differs if the code has changed since."""
    job: J
    status: Status
    result: R | None
    """Present if and only if the status is ``finished``, ``diverged`` or ``dropped``."""
    error: str | None
    """Why the latest attempt failed: one line, then the end of the traceback."""
    provenance: dict[str, Any]
    """Where and when the result (or the failure) came about: :func:`archlab.store.provenance.provenance`. Empty while the
    first attempt runs."""
    finished: str | None
    """When that was (ISO 8601)."""

    @property
    def reason(self) -> str:
        """The line of the error that says why; empty if there is none."""
        return (self.error or "").partition("\n")[0]


class Ledger(RunStore, ABC, Generic[J, R]):
    """One table of the results database, shared by any number of processes.

    A job with a result is never computed again. One that is being computed belongs to an owner, a living process; when that
    process dies, others may claim it. Each opened ledger is one owner.

    A subclass names its table and says how jobs and results become columns and are read back.
    """

    table: ClassVar[Table]
    description: ClassVar[str]
    """The column that holds the job."""
    noun: ClassVar[str]
    """One of its jobs, in messages."""

    def __init__(self, location: Location | OpenedStore, *, create: bool = True, owner: Owner | None = None) -> None:
        """Open the store at a location, see :class:`OpenedStore`. By default this process claims."""
        super().__init__(location, create=create, owner=owner)
        self._table_found = False
        self._held: set[str] = set()
        """Keys of the claims that this owner knows it has; one that only the store has is one whose confirmation was lost."""

    @abstractmethod
    def read_job(self, description: dict[str, Any], known: dict[Any, Any]) -> J:
        """The job that ``to_dict`` wrote down; refuses fields and values that are unknown to this archlab.

        ``known`` is empty at first, and keeps what jobs that are read together have in common.
        """

    @abstractmethod
    def read_result(self, row: AnyRow) -> R:
        """The result that :meth:`result_columns` wrote down."""

    @abstractmethod
    def result_columns(self, result: R) -> dict[str, Any]:
        """The result as columns, its ``status`` among them."""

    def records(
        self,
        keys: Iterable[str] | None = None,
        statuses: Iterable[Status] | None = None,
        *,
        unreadable: Lines | None = None,
    ) -> list[Record[J, R]]:
        """All jobs that the store knows, oldest first, or those with the given keys, in that order; those with given statuses.

        A row that this archlab cannot read is refused, whatever its status; or ``unreadable`` takes a line for each, by its key.
        """

        return [*self._read_rows([self.table], self._record, keys, statuses, unreadable)]

    def scan(self, check: Callable[[J], None] = lambda _: None, *, unreadable: Lines) -> Iterator[Record[J, R]]:
        """All records as :meth:`records` gives them, but one by one: whoever keeps none needs little memory.

        A job that ``check`` refuses is one that cannot be read.
        """

        def whole(row: AnyRow, known: dict[Any, Any]) -> Record[J, R]:
            record = self._record(row, known)
            check(record.job)
            return record

        return self._read_rows([self.table], whole, None, None, unreadable)

    def outcomes(
        self,
        keys: Iterable[str] | None = None,
        statuses: Iterable[Status] | None = None,
        *,
        unreadable: Lines | None = None,
    ) -> list[Record[J, Any]]:
        """As :meth:`records`, but fast, for large stores: a result may lack what is long, such as its curve, and a provenance
        what no two have in common, its times."""
        return self.records(keys, statuses, unreadable=unreadable)

    def _read_rows(
        self,
        columns: Sequence[Any],
        read: Callable[[AnyRow, dict[Any, Any]], Item],
        keys: Iterable[str] | None,
        statuses: Iterable[Status] | None,
        unreadable: Lines | None,
    ) -> Iterator[Item]:
        """Whatever ``read`` makes of each row's columns; its second argument is empty at first, and the same for all rows."""
        known: dict[Any, Any] = {}
        wanted = None if statuses is None else list(statuses)
        if not self._has_table():  # the store of an earlier archlab
            return
        for condition, order in self._parts(None if keys is None else list(dict.fromkeys(keys))):
            if wanted is not None:
                # As an expression: by its index on the status, SQLite would read the whole table for every part.
                # A status that none has is damage, which is named.
                status = cast(self.table.c.status, String)
                condition &= or_(status.in_(wanted), status.not_in(STATUSES))
            query = select(*columns).where(condition)
            rows = self._rows(query if order else query.order_by(self.table.c.id))
            names = enumerate(rows[0]._fields) if rows else ()
            plain = [(name, index) for index, name in names if name in ("key", "status", "error")]
            for row in sorted(rows, key=lambda row: order[row.key]) if order else rows:
                # All stored values are read here: whatever a damaged row holds, the error is one line.
                try:
                    check_columns({name: row[index] for name, index in plain})
                    item = read(row, known)
                except Exception as error:
                    self._name(f"{self.noun} {row.key}", str(row.key), error, unreadable)
                else:
                    yield item

    def _parts(self, keys: Sequence[str] | None) -> Iterator[tuple[ColumnElement[bool], dict[str, int]]]:
        """Conditions that together select all rows, or those with the keys, some hundred each; and the order of the keys."""
        if keys is not None:
            for chunk in _chunks(keys):
                yield self.table.c.key.in_(chunk), {key: index for index, key in enumerate(chunk)}
            return
        ((first, last),) = self._rows(select(func.min(self.table.c.id), func.max(self.table.c.id)))
        for start in range(first or 0, (last or -1) + 1, _CHUNK):
            yield self.table.c.id.between(start, start + _CHUNK - 1), {}

    def _record(self, row: AnyRow, known: dict[Any, Any]) -> Record[J, R]:
        check_columns({name: getattr(row, name) for name in (self.description, "result")})
        provenance = read_provenance(row.provenance)
        record = Record(
            key=row.key,
            job=self.read_job(getattr(row, self.description), known),
            status=row.status,
            result=None if row.status in ("running", "failed") else self.read_result(row),
            error=row.error,
            provenance=provenance,
            finished=provenance.get("finished"),
        )
        if record.result is not None and self._engine.dialect.name in VERBATIM:
            check_unchanged(dump_json(row.result), provenance.get("checksum"))
        return record

    def finish(self, job: J, result: R, provenance: dict[str, Any], *, instead_of: Sequence[str] = ()) -> None:
        """Store the result of a job; on return it is on the disk, and the rows with the keys ``instead_of`` are gone.

        A result that another owner has stored meanwhile stays.
        """
        self.finish_all([(job, result)], provenance, instead_of=instead_of)

    @outlasting
    def finish_all(self, results: Sequence[tuple[J, R]], provenance: dict[str, Any], *, instead_of: Sequence[str] = ()) -> None:
        """Store the results of jobs, all in one transaction, as :meth:`finish` does."""
        self._held.difference_update(job.key for job, _ in results)
        with self._write() as connection:
            self._delete(connection, instead_of)
            for job, result in results:
                columns = {"owner": None, "error": None, "provenance": provenance, self.description: job.to_dict()}
                columns |= self.result_columns(result)
                columns["provenance"] = provenance | {"checksum": checksum(dump_json(columns["result"]))}
                known = connection.execute(
                    update(self.table).where(self.table.c.key == job.key, self.table.c.status.not_in(SETTLED)).values(columns)
                ).rowcount
                if not known:  # settled by another owner, or claimed and given back by one
                    self._insert_if_missing(connection, {"key": job.key, self.description: job.to_dict()} | columns)

    def claim(self, wanted: Sequence[J], limit: int, settled: Sequence[Status] = SETTLED) -> list[J]:
        """Take up to ``limit`` of the jobs, in the given order, to compute them; no one else gets them.

        Passed over: those whose status is ``settled``, and those that a living owner computes (this one included).
        Those that failed, by default those that were dropped, and those of owners that died, can be claimed.
        """
        claimed: list[J] = []
        few = 2 * limit + _FEW  # usually one of the first is free
        for chunk in (wanted[:few], *_chunks(wanted[few:])):
            states, dead = self._states([job.key for job in chunk])
            for job in chunk:
                if len(claimed) >= limit:
                    return self._hold(claimed)
                state = states.get(job.key)
                if state is not None and (state.status, state.owner) == ("running", self.owner.id) and job.key not in self._held:
                    claimed.append(job)  # whose confirmation was lost
                    continue
                free = state is None or state.status not in (*settled, "running")
                if free or (state is not None and state.status == "running" and state.owner in dead):
                    if time.monotonic() - self._heard > _FRESH_SECONDS:
                        self.heartbeat()  # others must know the owner before they see its claims
                    if self._take(job, state):
                        claimed.append(job)
        return self._hold(claimed)

    def running(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that an owner computes now, or did until it died."""
        query = select(self.table.c.key).where(self.table.c.status == "running")
        return {row.key for chunk in _chunks(keys) for row in self._rows(query.where(self.table.c.key.in_(chunk)))}

    def _hold(self, claimed: list[J]) -> list[J]:
        self._held.update(job.key for job in claimed)
        return claimed

    @outlasting
    def fail(self, job: J, error: str, provenance: dict[str, Any]) -> None:
        """Store why an attempt at a claimed job failed."""
        readable = error.encode("utf-8", "replace").decode().replace("\0", "?")
        mine = update(self.table).where(self.table.c.key == job.key, self.table.c.owner == self.owner.id)
        self._held.discard(job.key)
        with self._write() as connection:
            connection.execute(mine.values(status="failed", owner=None, error=readable, provenance=provenance))

    @outlasting
    def discard(self, damaged: Mapping[str, str]) -> None:
        """Give up results that cannot be read, by key and reason, so that they can be claimed and computed again."""
        with self._write() as connection:
            for key, reason in damaged.items():
                lost = update(self.table).where(self.table.c.key == key, self.table.c.status != "running")
                connection.execute(lost.values(status="failed", error=reason, result=None))

    @outlasting
    def describe(self, job: J) -> None:
        """Replace the stored description of a job: it may differ in fields that its key leaves out."""
        with self._write() as connection:
            change = update(self.table).where(self.table.c.key == job.key)
            connection.execute(change.values({self.description: job.to_dict()}))

    @outlasting
    def rekey(self, keys: Mapping[str, str]) -> list[str]:
        """Give results other keys, new by old ones, all in one transaction; of two that want the same one the first gets it.

        Returns the old keys of those that got their new one: nothing settled had it, no running job, and no equal result.
        """
        moved: list[str] = []
        if not keys:
            return moved
        with self._write() as connection:
            rows = connection.execute(select(self.table.c.key, self.table.c.status)).all()
            status: dict[str, Status] = {row.key: row.status for row in rows}
            for old, new in keys.items():
                if old not in status or status.get(new) in (*SETTLED, "running", status[old]):
                    continue
                connection.execute(delete(self.table).where(self.table.c.key == new))
                connection.execute(update(self.table).where(self.table.c.key == old).values(key=new))
                status[new] = status.pop(old)
                moved.append(old)
        return moved

    @outlasting
    def delete(self, keys: Sequence[str]) -> int:
        """Delete jobs with their results, except those that are being computed; how many."""
        with self._write() as connection:
            return self._delete(connection, keys)

    def _delete(self, connection: Connection, keys: Sequence[str]) -> int:
        idle = delete(self.table).where(self.table.c.status != "running")
        return sum(connection.execute(idle.where(self.table.c.key.in_(chunk))).rowcount for chunk in _chunks(keys))

    @outlasting
    def delete_unreadable(self, keys: Collection[str]) -> int:
        """Delete the rows and the runs that :meth:`records` and :meth:`runs` could not read, by the keys of their lines; how
        many. Those that are being computed stay."""
        deleted = 0
        with self._write() as connection:
            for chunk in _chunks([*keys]):
                named = (literal("run ") + cast(runs.c.id, String)).in_(chunk)
                deleted += connection.execute(delete(runs).where(named)).rowcount
            if self._file:  # any other database takes nothing but text for a key
                deleted += connection.execute(delete(self.table).where(func.typeof(self.table.c.key) != "text")).rowcount
        return deleted + self.delete([*keys])

    @outlasting
    def give_back(self, job: J) -> None:
        """Give back a claim: the job is as if this owner had never taken it."""
        self._held.discard(job.key)
        with self._write() as connection:
            self._unclaim(connection, self.table.c.key == job.key)

    @outlasting
    def release(self) -> None:
        """Give back every claim of this owner."""
        self._held.clear()
        self._heard = -math.inf
        with self._write() as connection:
            self._unclaim(connection, true())
            connection.execute(delete(owners).where(owners.c.id == self.owner.id))

    def _unclaim(self, connection: Connection, which: ColumnElement[bool]) -> None:
        mine = and_(self.table.c.owner == self.owner.id, which)
        earlier = case((self.table.c.error.is_not(None), "failed"), else_="dropped")
        known = or_(self.table.c.error.is_not(None), self.table.c.result.is_not(None))
        connection.execute(update(self.table).where(mine, known).values(status=earlier, owner=None))
        connection.execute(delete(self.table).where(mine))

    @outlasting
    def _states(self, keys: list[str]) -> tuple[dict[str, AnyRow], set[str]]:
        """Status and owner of each known key, and which of the owners are dead."""
        with self._read() as connection:
            query = select(self.table.c.key, self.table.c.status, self.table.c.owner).where(self.table.c.key.in_(keys))
            states: dict[str, AnyRow] = {row.key: row for row in connection.execute(query)}
            claimants: set[str] = {row.owner for row in states.values() if row.status == "running"}
            return states, claimants - {owner.id for owner in living_owners(connection)} if claimants else set()

    @outlasting
    def _take(self, job: J, seen: AnyRow | None) -> bool:
        """Claim a job if it is still as it was seen; False if another owner was faster."""
        with self._write() as connection:
            if seen is None:
                columns = {"key": job.key, self.description: job.to_dict(), "status": "running", "owner": self.owner.id}
                try:
                    connection.execute(insert(self.table).values(columns))
                except IntegrityError:
                    connection.rollback()
                    return False
                return True
            as_seen = update(self.table).where(self.table.c.key == seen.key, self.table.c.status == seen.status)
            change = as_seen.where(self.table.c.owner.is_not_distinct_from(seen.owner))
            return connection.execute(change.values(status="running", owner=self.owner.id)).rowcount == 1

    @outlasting
    def _has_table(self) -> bool:
        with self._read() as connection:
            self._table_found = self._table_found or inspect_database(connection).has_table(self.table.name)
        return self._table_found

    def _insert_if_missing(self, connection: Connection, columns: dict[str, Any]) -> bool:
        try:
            with connection.begin_nested():
                connection.execute(insert(self.table).values(columns))
        except IntegrityError:
            return False
        return True


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
