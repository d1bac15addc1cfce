"""A table of pieces of work: which are done, which are being computed and by whom."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, case, delete, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from archlab.store.database import open_database, plain_errors
from archlab.store.owner import Owner
from archlab.store.record import SETTLED, Status
from archlab.store.schema import owners


class Work(Protocol):
    """What is computed at most once."""

    @property
    def key(self) -> str:
        """Hash of everything that can change the result, and of nothing else."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        ...


Piece = TypeVar("Piece", bound=Work)
Item = TypeVar("Item")
AnyRow = Row[*tuple[Any, ...]]

_CHUNK = 500  # keys in one statement; databases limit the number of parameters


class Ledger(Generic[Piece]):
    """One table of the results database at a path (SQLite) or an SQLAlchemy URL, shared by any number of processes.

    A piece of work with a result is never computed again. One that is being computed belongs to an owner, a living
    process; when that process dies, others may claim it. Each opened ledger is one owner.
    """

    table: ClassVar[Table]
    description: ClassVar[str]
    """The column that holds the piece of work."""
    filled_by: ClassVar[str]
    """The command that fills it."""

    def __init__(self, location: str | os.PathLike[str], *, create: bool = True, owner: Owner | None = None) -> None:
        """Open the store.

        Args:
            location: a file, or a URL such as ``postgresql+psycopg://user@host/database``.
            create: whether to make a store that does not exist; commands that only read pass False.
            owner: who claims; by default this process.

        Raises:
            ArchlabError: no store is there and none may or can be made; or something else is there, which is
                left untouched.
        """
        self._engine, self.where = open_database(location, create=create, filled_by=self.filled_by)
        self.owner = owner or Owner.of_this_process()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Claims stay: :meth:`release` gives them back."""
        self._engine.dispose()

    def claim(self, wanted: Sequence[Piece], limit: int, settled: Sequence[Status] = SETTLED) -> list[Piece]:
        """Take up to ``limit`` of the pieces, in the given order, to compute them; no one else gets them.

        Passed over: those whose status is ``settled``, and those that a living owner computes (this one included).
        Those that failed, by default those that were dropped, and those of owners that died, can be claimed.
        """
        claimed: list[Piece] = []
        for chunk in _chunks(wanted):
            states, dead = self._states([piece.key for piece in chunk])
            for piece in chunk:
                if len(claimed) >= limit:
                    return claimed
                state = states.get(piece.key)
                free = state is None or state.status not in (*settled, "running")
                if free or (state is not None and state.status == "running" and state.owner in dead):
                    if not claimed:
                        self.heartbeat()  # others must know the owner before they see its claims
                    if self._take(piece, state):
                        claimed.append(piece)
        return claimed

    def heartbeat(self) -> None:
        """Tell other machines that this owner is alive; due every few seconds while something is claimed."""
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

    def fail(self, piece: Piece, error: str, provenance: dict[str, Any]) -> None:
        """Store why an attempt at a claimed piece of work failed."""
        readable = error.encode("utf-8", "replace").decode().replace("\0", "?")
        with self._write() as connection:
            connection.execute(
                update(self.table)
                .where(self.table.c.key == piece.key, self.table.c.owner == self.owner.id)
                .values(status="failed", owner=None, error=readable, provenance=provenance)
            )

    def describe(self, piece: Piece) -> None:
        """Keep this description of a piece of work: what its key leaves out may differ from the one that was there."""
        with self._write() as connection:
            described = {self.description: piece.to_dict()}
            connection.execute(update(self.table).where(self.table.c.key == piece.key).values(described))

    def give_back(self, piece: Piece) -> None:
        """Give back a claim: the piece is as if this owner had never taken it."""
        with self._write() as connection:
            self._unclaim(connection, self.table.c.key == piece.key)

    def release(self) -> None:
        """Give back every claim of this owner."""
        with self._write() as connection:
            self._unclaim(connection, true())
            connection.execute(delete(owners).where(owners.c.id == self.owner.id))

    def _unclaim(self, connection: Connection, which: ColumnElement[bool]) -> None:
        mine = and_(self.table.c.owner == self.owner.id, which)
        earlier = case((self.table.c.error.is_not(None), "failed"), else_="dropped")
        known = or_(self.table.c.error.is_not(None), self.table.c.result.is_not(None))
        connection.execute(update(self.table).where(mine, known).values(status=earlier, owner=None))
        connection.execute(delete(self.table).where(mine))

    def _settle(self, piece: Piece, columns: dict[str, Any]) -> None:
        """Store a result; on return it is on the disk. A result that another owner has stored meanwhile stays."""
        columns = {"owner": None, "error": None} | columns
        with self._write() as connection:
            known = connection.execute(
                update(self.table).where(self.table.c.key == piece.key, self.table.c.status.not_in(SETTLED)).values(columns)
            ).rowcount
            if not known:  # settled by another owner, or claimed and given back by one
                self._insert_if_missing(connection, {"key": piece.key, self.description: piece.to_dict()} | columns)

    def _rows(self, keys: Iterable[str] | None, statuses: Iterable[Status] | None) -> list[AnyRow]:
        """All rows, oldest first, or those with the given keys, in that order."""
        wanted = None if keys is None else list(dict.fromkeys(keys))
        query = select(self.table).order_by(self.table.c.id)
        if statuses is not None:
            query = query.where(self.table.c.status.in_(list(statuses)))
        with self._read() as connection:
            if wanted is None:
                return list(connection.execute(query))
            rows = [row for chunk in _chunks(wanted) for row in connection.execute(query.where(self.table.c.key.in_(chunk)))]
        position = {key: index for index, key in enumerate(wanted)}
        return sorted(rows, key=lambda row: position[row.key])

    def _states(self, keys: list[str]) -> tuple[dict[str, AnyRow], set[str]]:
        """Status and owner of each known key, and which of the owners are dead."""
        with self._read() as connection:
            query = select(self.table.c.key, self.table.c.status, self.table.c.owner).where(self.table.c.key.in_(keys))
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

    def _take(self, piece: Piece, seen: AnyRow | None) -> bool:
        """Claim a piece if it is still as it was seen; False if another owner was faster."""
        with self._write() as connection:
            if seen is None:
                columns = {"key": piece.key, self.description: piece.to_dict(), "status": "running", "owner": self.owner.id}
                return self._insert_if_missing(connection, columns)
            as_seen = (
                self.table.c.key == seen.key,
                self.table.c.status == seen.status,
                self.table.c.owner.is_not_distinct_from(seen.owner),
            )
            change = update(self.table).where(*as_seen).values(status="running", owner=self.owner.id)
            return connection.execute(change).rowcount == 1

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with plain_errors(self.where), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with plain_errors(self.where), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def _insert_if_missing(self, connection: Connection, columns: dict[str, Any]) -> bool:
        try:
            with connection.begin_nested():
                connection.execute(insert(self.table).values(columns))
        except IntegrityError:
            return False
        return True


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
