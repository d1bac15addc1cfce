"""Copying settled rows from one store to another."""

import os
from contextlib import ExitStack

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy import inspect as inspect_database

from archlab.store.database import open_database, plain_errors
from archlab.store.record import RACED
from archlab.store.schema import imported_runs, language_models, runs, trials


def merge(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, int]:
    """Copy the results and the runs of a store into another one, which is made if it does not exist; how many rows, by table.

    A result that the target has already stays as it is; a run that it has already is not noted twice.
    """
    with ExitStack() as stack:
        origin, where = open_database(source, create=False, filled_by="archlab run SPEC")
        stack.callback(origin.dispose)
        goal, there = open_database(target, create=True, filled_by="archlab run SPEC")
        stack.callback(goal.dispose)
        stack.enter_context(plain_errors(where))
        reader = stack.enter_context(origin.connect())
        stack.enter_context(plain_errors(there))
        writer = stack.enter_context(goal.connect().execution_options(writes=True))
        stack.enter_context(writer.begin())
        present = inspect_database(reader).get_table_names()
        copied = {
            table.name: _copy(reader, writer, table)
            for table in (trials, language_models, imported_runs)
            if table.name in present
        }
        known = [row.plan for row in writer.execute(select(runs))]
        new = [row.plan for row in reader.execute(select(runs).order_by(runs.c.id)) if row.plan not in known]
        for plan in new:
            writer.execute(insert(runs).values(plan=plan))
        return copied | {"runs": len(new)}


def _copy(reader: Connection, writer: Connection, table: Table) -> int:
    """Copy settled rows that the target lacks; a row of the target without a result is replaced."""
    settled = set(writer.scalars(select(table.c.key).where(table.c.status.in_(RACED))))
    rows = reader.execute(select(table).where(table.c.status.in_(RACED)).order_by(table.c.id))
    copied = 0
    for row in (row for row in rows if row.key not in settled):
        writer.execute(table.delete().where(table.c.key == row.key))
        writer.execute(insert(table).values({name: x for name, x in row._mapping.items() if name not in ("id", "owner")}))
        copied += 1
    return copied
