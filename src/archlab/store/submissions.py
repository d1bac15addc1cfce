"""Submissions: jobs that runs leave to workers of other machines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update

from archlab.errors import ArchlabError
from archlab.fields import check_fields
from archlab.store.database import outlasting
from archlab.store.opened import Location, OpenedStore
from archlab.store.runs import Lines
from archlab.store.schema import submissions


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Jobs that a run has submitted. It is data: whoever reads it computes what its own code gives the same keys."""

    number: int
    run: int | None
    """Number of the run, as `archlab runs` shows it."""
    kind: str
    """The kind of the run, as that of its ledger."""
    priority: int
    """Workers take the highest first, and of equal ones the oldest."""
    what: dict[str, Any]
    """The jobs, and how they are computed."""
    keys: list[str]
    """The jobs' keys, in their order."""

    def __post_init__(self) -> None:
        """Refuse fields that are not of their types."""
        check_fields(self)


class Submissions(OpenedStore):
    """The submissions of a store."""

    def __init__(self, location: Location | OpenedStore) -> None:
        """Open the submissions of a store, which is there."""
        filled_by = "archlab run SPEC --executor workers"
        if not isinstance(location, OpenedStore):
            OpenedStore(location, create=False, filled_by=filled_by).close()
        super().__init__(location, filled_by=filled_by)  # where an earlier archlab has made the store, the table is made now

    def open(self, damaged: Lines | None = None) -> list[Submission]:
        """Those that are neither ended nor withdrawn, in the order in which workers take them.

        Damaged ones are left out; ``damaged`` takes a line for each.
        """
        query = select(submissions).where(submissions.c.status == "open")
        found = []
        for row in self._rows(query.order_by(submissions.c.priority.desc(), submissions.c.id)):
            values = {name: value for name, value in row._mapping.items() if name not in ("id", "status")}
            try:
                found.append(Submission(number=row.id, **values))
            except ArchlabError as error:
                if damaged is not None:
                    damaged[f"submission {row.id}"] = f"submission {row.id} is damaged and left out: {error}"
        return found

    @outlasting
    def submit(self, run: int | None, kind: str, what: dict[str, Any], keys: Sequence[str], priority: int) -> int:
        """Ask workers to compute jobs; the number of the submission. An open one that asks for the same takes the priority."""
        same = [one for one in self.open() if (one.kind, one.what, one.keys) == (kind, what, [*keys])]
        with self._write() as connection:
            if same:
                number = same[0].number
                connection.execute(update(submissions).where(submissions.c.id == number).values(priority=priority, run=run))
                return number
            values = {"run": run, "kind": kind, "what": what, "keys": [*keys], "priority": priority, "status": "open"}
            return int(connection.execute(insert(submissions).values(values).returning(submissions.c.id)).scalar_one())

    @outlasting
    def close_one(self, number: int, status: str) -> None:
        """Say that a submission has ``"ended"`` or is ``"withdrawn"``."""
        with self._write() as connection:
            connection.execute(update(submissions).where(submissions.c.id == number).values(status=status))

    def withdraw(self, run: int) -> None:
        """Withdraw what a run has submitted; refuses a run without anything open."""
        numbers = [one.number for one in self.open() if one.run == run]
        if not numbers:
            raise ArchlabError(
                f"--withdraw {run}: run {run} has nothing that workers still compute: `archlab runs` lists the runs"
            )
        for number in numbers:
            self.close_one(number, "withdrawn")
