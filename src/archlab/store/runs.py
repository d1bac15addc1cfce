"""The runs of a store, the attempts at them, and the owners that compute them."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from textwrap import shorten
from typing import Annotated, Any, ClassVar

from sqlalchemy import Connection, Float, cast, extract, func, insert, select, update
from sqlalchemy import inspect as inspect_database

from archlab.errors import ArchlabError, in_one_line
from archlab.fields import between, check_fields, check_value
from archlab.store.database import outlasting
from archlab.store.opened import Location, OpenedStore
from archlab.store.owner import Owner
from archlab.store.schema import attempts, owners, runs

Lines = dict[str, str]
"""Why rows cannot be read: one line for each, by its key."""

_YEAR_9999 = 253_402_300_799  # no calendar goes further
_NOW = cast(extract("epoch", func.current_timestamp()), Float)
"""Unix time by the clock of the database, which all machines share."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the store remembers it."""

    number: int
    label: str
    """The user's name for it; empty if it has none."""
    started: Annotated[float, between(0, _YEAR_9999)] | None
    """Unix time; None for a run of an earlier version of archlab."""
    plan: Any
    """The jobs that it set out to compute."""

    def __post_init__(self) -> None:
        """Refuse fields that are not of their types."""
        check_fields(self)


@dataclass(frozen=True)
class Attempt:
    """A call of a command that set out to compute a run."""

    begun: dict[str, Any]
    """When, where, and on which versions."""
    ended: dict[str, Any] | None
    """When and how; None while it goes on, and for ever if it was killed."""
    is_alive: bool
    """Whether its process still computes."""

    @property
    def end(self) -> str:
        """How it ended, in a few words."""
        return str(self.ended.get("how")) if self.ended else "running" if self.is_alive else "killed"


class RunStore(OpenedStore):
    """The runs of one kind in a store. Each opened one is an owner, which others see alive as long as its heart beats."""

    filled_by: ClassVar[str]
    """The command that fills the store."""
    kind: ClassVar[str]
    """The kind of its runs, see :meth:`remember_run`."""

    def __init__(self, location: Location | OpenedStore, *, create: bool = True, owner: Owner | None = None) -> None:
        """Open the store at a location, see :class:`OpenedStore`. By default the owner is this process."""
        super().__init__(location, create=create, filled_by=self.filled_by)
        self.owner = owner or Owner.of_this_process()
        self._heard = -math.inf  # when this owner last said that it is alive

    def remember_run(self, plan: dict[str, Any], *, label: str = "") -> int:
        """Note the plan of a run (JSON-ready), so that its results can be shown without saying it again; its number."""
        return self._insert_run({"kind": self.kind, "label": label, "started": time.time()} | plan)

    @outlasting
    def _insert_run(self, note: dict[str, Any]) -> int:
        with self._write() as connection:
            latest = connection.execute(select(runs).order_by(runs.c.id.desc()).limit(1)).first()
            if latest is not None and latest.plan == note:  # its confirmation was lost
                return int(latest.id)
            return int(connection.execute(insert(runs).values(plan=note).returning(runs.c.id)).scalar_one())

    def runs(self, read: Callable[[dict[str, Any]], Any] = dict, *, unreadable: Lines | None = None) -> list[Run]:
        """The runs of this kind on the store, oldest first, each with its plan as ``read`` gives it.

        A row that cannot be read is refused; or ``unreadable`` takes a line for each, also for those of no kind.
        """
        found = []
        for row in self._rows(select(runs).order_by(runs.c.id)):
            try:
                note = check_value("plan", row.plan, Mapping[str, Any])
                if check_value("kind", note.get("kind", "mad"), str) == self.kind:
                    label, started = note.get("label") or "", note.get("started")
                    found.append(Run(number=row.id, label=label, started=started, plan=read(note)))
            except Exception as error:
                self._name(f"run {row.id}", f"run {row.id}", error, unreadable)
        return found

    @outlasting
    def begin_attempt(self, run: int, begun: dict[str, Any]) -> int:
        """Note that this owner sets out to compute a run; the number of the attempt."""
        self.heartbeat()
        values = {"run": run, "owner": self.owner.id, "begun": begun}
        with self._write() as connection:
            return int(connection.execute(insert(attempts).values(values).returning(attempts.c.id)).scalar_one())

    @outlasting
    def end_attempt(self, number: int, ended: dict[str, Any]) -> None:
        """Note how an attempt has ended."""
        with self._write() as connection:
            connection.execute(update(attempts).where(attempts.c.id == number).values(ended=ended))

    @outlasting
    def attempts(self) -> dict[int, Attempt]:
        """The latest attempt at each run, by the number of the run."""
        with self._read() as connection:
            if not inspect_database(connection).has_table(attempts.name):  # the store of an earlier archlab
                return {}
            rows = connection.execute(select(attempts).order_by(attempts.c.id)).all()
            living = {owner.id for owner in living_owners(connection)}
        return {
            row.run: Attempt(row.begun, row.ended, row.owner in living)
            for row in rows
            if isinstance(row.begun, dict) and isinstance(row.ended, dict | None)  # else it is damaged
        }

    def _name(self, what: str, key: str, error: Exception, unreadable: Lines | None) -> None:
        """Refuse a row that cannot be read in one line; or put the line beside the others."""
        why = str(error) if isinstance(error, ArchlabError) else f"it is damaged ({shorten(in_one_line(error), 300)})"
        line = f"store {self.where}: {what} cannot be read: {why}; `archlab store check --delete` removes it"
        if unreadable is None:
            raise ArchlabError(line) from error
        unreadable[key] = line

    @outlasting
    def heartbeat(self) -> None:
        """Tell other machines that this owner is alive; due every few seconds while something is claimed."""
        with self._write() as connection:
            beat = {"heartbeat": _NOW}
            if connection.execute(update(owners).where(owners.c.id == self.owner.id).values(beat)).rowcount == 0:
                if self._file:
                    self._refuse_other_machines(connection)
                connection.execute(insert(owners).values(asdict(self.owner) | beat))
        self._heard = time.monotonic()

    def _refuse_other_machines(self, connection: Connection) -> None:
        """A file's write-ahead log has its index in memory, which machines do not share: two at once damage the store."""
        for other in living_owners(connection):
            if other.kernel != self.owner.kernel:
                host = other.machine.partition(" ")[0]
                raise ArchlabError(
                    f"store {self.where}: another machine, {host}, computes with this file: machines can share a database "
                    "server only (docs/store.md); or give this one a store of its own, and `archlab store merge` them"
                )


def living_owners(connection: Connection) -> list[Owner]:
    """The owners that are alive, by the clock of the database."""
    found = [
        (Owner(**{field.name: getattr(row, field.name) for field in fields(Owner)}), row)
        for row in connection.execute(select(owners, _NOW.label("now")))
    ]
    return [owner for owner, row in found if owner.is_alive(row.heartbeat, row.now)]
