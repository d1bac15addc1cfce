"""The store: which trials are done, which are being computed and by whom, and what they gave."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from archlab.errors import ArchlabError
from archlab.store.location import open_database, plain_errors
from archlab.store.owner import Owner
from archlab.store.record import RACED, SETTLED, Record, Status, result_columns, result_from_columns
from archlab.store.schema import owners, runs, trials
from archlab.training.trial import Trial, TrialResult

Item = TypeVar("Item")
AnyRow = Row[*tuple[Any, ...]]

_CHUNK = 500  # keys in one statement; databases limit the number of parameters


class Store:
    """The results database at a path (SQLite) or an SQLAlchemy URL, shared by any number of processes.

    A trial with a result is never computed again. A trial that is being computed belongs to an owner, a
    living process; when that process dies, others may claim the trial. Each opened store is one owner.
    """

    def __init__(self, location: str | os.PathLike[str], *, create: bool = True, owner: Owner | None = None) -> None:
        """Open the store.

        Args:
            location: a file, or a URL such as ``postgresql+psycopg://user@host/database``.
            create: whether to make a store that does not exist; commands that only read pass False.
            owner: who claims trials; by default this process.

        Raises:
            ArchlabError: no store is there and none may or can be made; or something else is there, which is
                left untouched.
        """
        self._engine, self.where = open_database(location, create=create)
        self.owner = owner or Owner.of_this_process()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Claims stay: :meth:`release` gives them back."""
        self._engine.dispose()

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
        wanted = None if keys is None else list(dict.fromkeys(keys))
        query = select(trials).order_by(trials.c.id)
        if statuses is not None:
            query = query.where(trials.c.status.in_(list(statuses)))
        with self._read() as connection:
            if wanted is None:
                return list(self._readable(connection.execute(query), skip_unknown))
            rows = [row for chunk in _chunks(wanted) for row in connection.execute(query.where(trials.c.key.in_(chunk)))]
        position = {key: index for index, key in enumerate(wanted)}
        return list(self._readable(sorted(rows, key=lambda row: position[row.key]), skip_unknown))

    def claim(self, wanted: Sequence[Trial], limit: int, settled: Sequence[Status] = SETTLED) -> list[Trial]:
        """Take up to ``limit`` of the trials, in the given order, to compute them; no one else gets them.

        Passed over: trials whose status is ``settled``, and those that a living owner computes (this one included).
        Trials that failed, by default those that were dropped, and those of owners that died, can be claimed.
        """
        claimed: list[Trial] = []
        for chunk in _chunks(wanted):
            states, dead = self._states([trial.key for trial in chunk])
            for trial in chunk:
                if len(claimed) >= limit:
                    return claimed
                state = states.get(trial.key)
                free = state is None or state.status not in (*settled, "running")
                if free or (state is not None and state.status == "running" and state.owner in dead):
                    if not claimed:
                        self.heartbeat()  # others must know the owner before they see its claims
                    if self._take(trial, state):
                        claimed.append(trial)
        return claimed

    def heartbeat(self) -> None:
        """Tell other machines that this owner is alive; due every few seconds while trials are claimed."""
        with self._write() as connection:
            beat = update(owners).where(owners.c.id == self.owner.id).values(heartbeat=time.time())
            if connection.execute(beat).rowcount == 0:
                columns = {
                    "id": self.owner.id,
                    "machine": self.owner.machine,
                    "pid": self.owner.pid,
                    "process_started": self.owner.process_started,
                    "heartbeat": time.time(),
                }
                connection.execute(insert(owners).values(columns))

    def finish(self, trial: Trial, result: TrialResult, provenance: dict[str, Any]) -> None:
        """Store the result of a trial; on return it is on the disk.

        A result that another owner has stored meanwhile stays.
        """
        columns = {"status": result.status, "owner": None, "error": None, "provenance": provenance} | result_columns(result)
        with self._write() as connection:
            known = connection.execute(
                update(trials).where(trials.c.key == trial.key, trials.c.status.not_in(SETTLED)).values(columns)
            ).rowcount
            if not known:  # settled by another owner, or claimed and given back by one
                _insert_if_missing(connection, {"key": trial.key, "trial": trial.to_dict()} | columns)

    def fail(self, trial: Trial, error: str, provenance: dict[str, Any]) -> None:
        """Store why an attempt at a claimed trial failed."""
        readable = error.encode("utf-8", "replace").decode().replace("\0", "?")
        with self._write() as connection:
            connection.execute(
                update(trials)
                .where(trials.c.key == trial.key, trials.c.owner == self.owner.id)
                .values(status="failed", owner=None, error=readable, provenance=provenance)
            )

    def give_back(self, trial: Trial) -> None:
        """Give back a claim: the trial is as if this owner had never taken it."""
        with self._write() as connection:
            self._unclaim(connection, trials.c.key == trial.key)

    def release(self) -> None:
        """Give back every claim of this owner."""
        with self._write() as connection:
            self._unclaim(connection, true())
            connection.execute(delete(owners).where(owners.c.id == self.owner.id))

    def _unclaim(self, connection: Connection, which: ColumnElement[bool]) -> None:
        mine = and_(trials.c.owner == self.owner.id, which)
        earlier = case((trials.c.error.is_not(None), "failed"), else_="dropped")
        known = or_(trials.c.error.is_not(None), trials.c.result.is_not(None))
        connection.execute(update(trials).where(mine, known).values(status=earlier, owner=None))
        connection.execute(delete(trials).where(mine))

    def remember_run(self, plan: dict[str, Any]) -> None:
        """Note what a run set out to compute (JSON-ready), so that scores can be shown without saying it again."""
        with self._write() as connection:
            connection.execute(insert(runs).values(plan=plan))

    def runs(self) -> list[dict[str, Any]]:
        """What the runs on this store set out to compute, oldest first."""
        with self._read() as connection:
            return [row.plan for row in connection.execute(select(runs).order_by(runs.c.id))]

    def _states(self, keys: list[str]) -> tuple[dict[str, AnyRow], set[str]]:
        """Status and owner of each known key, and which of the owners are dead."""
        with self._read() as connection:
            query = select(trials.c.key, trials.c.status, trials.c.owner).where(trials.c.key.in_(keys))
            states: dict[str, AnyRow] = {row.key: row for row in connection.execute(query)}
            claimants: set[str] = {row.owner for row in states.values() if row.status == "running"}
            rows = connection.execute(select(owners)).all() if claimants else []
        alive = {
            row.id
            for row in rows
            if row.id in claimants
            and Owner(machine=row.machine, pid=row.pid, process_started=row.process_started, id=row.id).is_alive(
                row.heartbeat, time.time()
            )
        }
        return states, claimants - alive

    def _take(self, trial: Trial, seen: AnyRow | None) -> bool:
        """Claim a trial if it is still as it was seen; False if another owner was faster."""
        with self._write() as connection:
            if seen is None:
                columns = {"key": trial.key, "trial": trial.to_dict(), "status": "running", "owner": self.owner.id}
                return _insert_if_missing(connection, columns)
            as_seen = (trials.c.key == seen.key, trials.c.status == seen.status, trials.c.owner.is_not_distinct_from(seen.owner))
            change = update(trials).where(*as_seen).values(status="running", owner=self.owner.id)
            return connection.execute(change).rowcount == 1

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

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with plain_errors(self.where), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with plain_errors(self.where), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection


def _insert_if_missing(connection: Connection, columns: dict[str, Any]) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(insert(trials).values(columns))
    except IntegrityError:
        return False
    return True


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
