"""Copying settled rows from one store to another."""

import os

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy import inspect as inspect_database

from archlab.store.database import open_database, plain_errors
from archlab.store.record import RACED
from archlab.store.schema import language_models, runs, trials


def merge(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, int]:
    """Copy the results and the runs of a store into another one, which is made if it does not exist; refuses what is no store.

    A result that the target has already stays as it is; a run that it has already is not noted twice. Returns how many rows
    were copied, by table: ``trials``, ``language_models`` and ``runs``.
    """
    origin, where = open_database(source, create=False, filled_by="archlab run SPEC")
    try:
        goal, there = open_database(target, create=True, filled_by="archlab run SPEC")
        try:
            with (
                plain_errors(where),
                origin.connect() as reader,
                plain_errors(there),
                goal.connect().execution_options(writes=True) as writer,
                writer.begin(),
            ):
                present = inspect_database(reader).get_table_names()
                copied = {
                    table.name: _copy(reader, writer, table) for table in (trials, language_models) if table.name in present
                }
                known = [row.plan for row in writer.execute(select(runs))]
                new = [row.plan for row in reader.execute(select(runs).order_by(runs.c.id)) if row.plan not in known]
                for plan in new:
                    writer.execute(insert(runs).values(plan=plan))
                return copied | {"runs": len(new)}
        finally:
            goal.dispose()
    finally:
        origin.dispose()


def _copy(reader: Connection, writer: Connection, table: Table) -> int:
    """Copy settled rows that the target lacks; a row of the target without a result is replaced."""
    settled = set(writer.scalars(select(table.c.key).where(table.c.status.in_(RACED))))
    held = set(writer.scalars(select(table.c.key).where(table.c.status.not_in(RACED))))
    copied = 0
    for row in reader.execute(select(table).where(table.c.status.in_(RACED)).order_by(table.c.id)):
        if row.key in settled:
            continue
        values = {column: value for column, value in row._mapping.items() if column not in ("id", "owner")}
        if row.key in held:
            writer.execute(table.delete().where(table.c.key == row.key))
        writer.execute(insert(table).values(owner=None, **values))
        copied += 1
    return copied
