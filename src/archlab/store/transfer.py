"""Copying settled rows from one store to another."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select
from sqlalchemy import inspect as inspect_database

from archlab.errors import ArchlabError
from archlab.store.database import open_database, plain_errors
from archlab.store.record import RACED, check_columns, read_provenance
from archlab.store.schema import imported_runs, language_models, runs, trials


def merge(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, int]:
    """Copy the results and the runs of a store into another one, which is made if it does not exist; how many rows, by table.

    A result that the target has already stays as it is; a run that it has already is not noted twice. Rows whose columns hold
    what archlab never writes there are ``left``.
    """
    with ExitStack() as stack:
        origin, where = open_database(source, create=False, filled_by="archlab run SPEC")
        stack.callback(origin.dispose)
        goal, there = open_database(target, create=True, filled_by="archlab run SPEC")
        stack.callback(goal.dispose)
        stack.enter_context(plain_errors(where, origin.url))
        reader = stack.enter_context(origin.connect())
        stack.enter_context(plain_errors(there, goal.url))
        writer = stack.enter_context(goal.connect().execution_options(writes=True))
        stack.enter_context(writer.begin())
        present = inspect_database(reader).get_table_names()
        tables = [table for table in (trials, language_models, imported_runs) if table.name in present]
        copied = dict.fromkeys([*(table.name for table in tables), "runs", "left"], 0)
        for table in tables:
            _copy(reader, writer, table, copied)
        known = [row.plan for row in writer.execute(select(runs))]
        for row in _sound(reader.execute(select(runs).order_by(runs.c.id)), copied):
            if row.plan not in known:
                writer.execute(insert(runs).values(plan=row.plan))
                copied["runs"] += 1
        return copied


def _copy(reader: Connection, writer: Connection, table: Table, copied: dict[str, int]) -> None:
    """Copy settled rows that the target lacks; a row of the target without a result is replaced."""
    settled = set(writer.scalars(select(table.c.key).where(table.c.status.in_(RACED))))
    for row in _sound(reader.execute(select(table).order_by(table.c.id)), copied):
        if row.status in RACED and row.key not in settled:
            writer.execute(table.delete().where(table.c.key == row.key))
            values = {name: value for name, value in row._mapping.items() if name not in ("id", "owner")}
            writer.execute(insert(table).values(values))
            copied[table.name] += 1


def _sound(rows: Iterable[Row[Any]], copied: dict[str, int]) -> Iterator[Row[Any]]:
    """The rows whose columns hold what archlab writes there; the others are counted as left."""
    for row in rows:
        try:
            check_columns(columns := row._asdict())
            read_provenance(columns.get("provenance"))
        except ArchlabError:
            copied["left"] += 1
        else:
            yield row
