"""Looking after a store as a whole: what it is, its schema's version, its size."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select, text, update
from sqlalchemy import inspect as inspect_database
from sqlalchemy.schema import CreateColumn

from archlab.errors import ArchlabError
from archlab.store.database import open_database, plain_errors, version_number
from archlab.store.runs import living_owners
from archlab.store.schema import SCHEMA_VERSION, meta, metadata, owners, runs

STEPS: dict[int, Callable[[Connection], None]] = {}
"""Changes of rows that a version of the schema asks for, by the version before it. Tables and columns that are missing need
none: they are made as the schema has them."""
Location = str | os.PathLike[str]


def info(location: Location) -> dict[str, Any]:
    """Facts of a store: database, version of the schema, bytes, rows by table and status, and who computes now.

    Raises:
        ArchlabError: there is no store.
    """
    with _opened(location) as (engine, where), engine.connect() as connection:
        present = [table for table in metadata.sorted_tables if inspect_database(connection).has_table(table.name)]
        return {
            "store": where,
            "database": f"{engine.dialect.name} {'.'.join(map(str, engine.dialect.server_version_info or ()))}".strip(),
            "schema_version": _version(connection),
            "bytes": _bytes(connection, where),
            "rows": {table.name: _rows(connection, table) for table in present if "status" in table.c},
            "runs": connection.scalar(select(func.count()).select_from(runs)) if runs in present else 0,
            "computing": [f"process {owner.pid} of {owner.machine.partition(' ')[0]}" for owner in living_owners(connection)],
        }


def migrate(location: Location) -> tuple[int, int]:
    """Bring a store to the present version of the schema, in one transaction; the versions before and after.

    Raises:
        ArchlabError: there is no store, a later archlab has written it, or a process computes with it.
    """
    with _opened(location) as (engine, where), engine.connect().execution_options(writes=True) as connection, connection.begin():
        found = _version(connection)
        if found > SCHEMA_VERSION:
            raise ArchlabError(f"store {where} has schema version {found}, this archlab knows {SCHEMA_VERSION}: upgrade archlab")
        if found < SCHEMA_VERSION:
            _refuse_company(connection, where)
            metadata.create_all(connection)
            for table in metadata.sorted_tables:
                _add_missing_columns(connection, table)
            for version in range(found, SCHEMA_VERSION):
                if version in STEPS:
                    STEPS[version](connection)
            connection.execute(update(meta).where(meta.c.name == "schema_version").values(value=str(SCHEMA_VERSION)))
        return found, SCHEMA_VERSION


def compact(location: Location) -> tuple[int, int]:
    """Give the space of deleted and replaced rows back; bytes before and after.

    Raises:
        ArchlabError: there is no store, or a process computes with it.
    """
    with _opened(location) as (engine, where), engine.connect() as connection:
        _refuse_company(connection, where)
        before = _bytes(connection, where)
        connection.rollback()
        with engine.begin() as cleaning:
            cleaning.execute(owners.delete())  # all are dead
        if engine.dialect.name == "sqlite":
            raw = engine.raw_connection()  # which begins no transaction
            raw.cursor().execute("VACUUM")
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            raw.close()
        else:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM (FULL, ANALYZE)"))
        return before, _bytes(connection, where)


@contextmanager
def _opened(location: Location) -> Iterator[tuple[Engine, str]]:
    engine, where = open_database(location, create=False, filled_by="archlab run SPEC", any_version=True)
    try:
        with plain_errors(where, engine.url):
            yield engine, where
    finally:
        engine.dispose()


def _version(connection: Connection) -> int:
    return version_number(connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version")) or "")


def _rows(connection: Connection, table: Table) -> dict[str, int]:
    counts = connection.execute(select(table.c.status, func.count()).group_by(table.c.status).order_by(table.c.status))
    return {str(status): number for status, number in counts}


def _bytes(connection: Connection, where: str) -> int:
    if connection.dialect.name == "sqlite":
        files = (Path(where), Path(f"{where}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())
    return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


def _refuse_company(connection: Connection, where: str) -> None:
    if living := living_owners(connection):
        host = living[0].machine.partition(" ")[0]
        raise ArchlabError(f"store {where}: process {living[0].pid} of {host} computes with it: let it end first")


def _add_missing_columns(connection: Connection, table: Table) -> None:
    present = {column["name"] for column in inspect_database(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in present:
            assert column.nullable, "rows of earlier versions have no value for it"
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
