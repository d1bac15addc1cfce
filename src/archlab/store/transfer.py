"""Copying settled rows from one store to another."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select
from sqlalchemy import inspect as inspect_database

from archlab.errors import ArchlabError
from archlab.store.database import open_database, plain_errors
from archlab.store.record import RACED, VERBATIM, check_columns, check_unchanged, dump_json, read_provenance
from archlab.store.schema import imported_runs, language_models, runs, trials

_RESULTS = (trials, language_models, imported_runs)


def merge(sources: Sequence[str | os.PathLike[str]], target: str | os.PathLike[str]) -> dict[str, int]:
    """Copy the results and the runs of stores into another one, which is made if it does not exist, all or none; how many rows,
    by table.

    A result that the target has already stays as it is; a run that it has already is not noted twice. Rows that are not as
    archlab wrote them are ``left``.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(_opened(source, create=False)) for source in sources]  # before the target is made
        writer = stack.enter_context(_opened(target, create=True))
        stack.enter_context(writer.begin())
        copied = dict.fromkeys([*(table.name for table in _RESULTS), "runs", "left"], 0)
        for reader in readers:
            present = inspect_database(reader).get_table_names()
            for table in _RESULTS:
                if table.name in present:
                    _copy(reader, writer, table, copied)
            known = [row.plan for row in writer.execute(select(runs))]
            for row in _sound(reader, runs, copied):
                if row.plan not in known:
                    writer.execute(insert(runs).values(plan=row.plan))
                    copied["runs"] += 1
        return copied


@contextmanager
def _opened(location: str | os.PathLike[str], *, create: bool) -> Iterator[Connection]:
    """A connection to a store, for writing if it may be made."""
    engine, where = open_database(location, create=create, filled_by="archlab run SPEC")
    try:
        with plain_errors(where, engine.url), engine.connect().execution_options(writes=create) as connection:
            yield connection
    finally:
        engine.dispose()


def _copy(reader: Connection, writer: Connection, table: Table, copied: dict[str, int]) -> None:
    """Copy settled rows that the target lacks; a row of the target without a result is replaced."""
    settled = set(writer.scalars(select(table.c.key).where(table.c.status.in_(RACED))))
    for row in _sound(reader, table, copied):
        if row.status in RACED and row.key not in settled:
            writer.execute(table.delete().where(table.c.key == row.key))
            values = {name: value for name, value in row._mapping.items() if name not in ("id", "owner")}
            writer.execute(insert(table).values(values))
            copied[table.name] += 1


def _sound(reader: Connection, table: Table, copied: dict[str, int]) -> Iterator[Row[Any]]:
    """The rows of a table that are as archlab wrote them; the others are counted as left."""
    for row in reader.execute(select(table).order_by(table.c.id)):
        try:
            check_columns(columns := row._asdict())
            provenance = read_provenance(columns.get("provenance"))
            if columns.get("status") in RACED and reader.dialect.name in VERBATIM:
                check_unchanged(dump_json(columns["result"]), provenance.get("checksum"))
        except ArchlabError:
            copied["left"] += 1
        else:
            yield row
