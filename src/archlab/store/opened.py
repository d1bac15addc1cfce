"""A store that is opened: its connections, and transactions that outlast a lost server."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Executable, Row

from archlab.errors import ArchlabError
from archlab.store.database import open_database, outlasting, plain_errors

AnyRow = Row[*tuple[Any, ...]]
Location = str | os.PathLike[str]


class OpenedStore:
    """The results database at a path (SQLite) or an SQLAlchemy URL. A context manager: leaving it closes the connections."""

    def __init__(self, location: "Location | OpenedStore", *, create: bool = True, filled_by: str) -> None:
        """Open the store at a file, or at a URL such as ``postgresql+psycopg://user@host/database``; or share the connections
        of one that is open.

        One that does not exist is made if ``create`` says so; else the error names the command that fills it. Refuses a place
        where no store is and none may or can be made.
        """
        self._lender = location if isinstance(location, OpenedStore) else None
        self._engine: Engine
        self.where: str
        """The location as messages name it."""
        if isinstance(location, OpenedStore):
            self._engine, self.where = location._engine, location.where
        else:
            self._engine, self.where = open_database(location, create=create, filled_by=filled_by)
        self._file = Path(self.where).absolute() if self._engine.url.get_backend_name() == "sqlite" else None
        self._closed = False
        self._inode = self._file.stat().st_ino if self._file else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, for good, unless they are shared. Claims stay: :meth:`Ledger.release` gives them back."""
        self._closed = True
        if self._lender is None:
            self._engine.dispose()

    def check_present(self) -> None:
        """Refuse to go on with a store that is closed, or whose file was deleted or moved away: what is written would be lost."""
        if self._closed:
            raise ArchlabError(f"store {self.where}: is closed: open it again")
        try:
            present = self._file is None or self._file.stat().st_ino == self._inode
        except OSError:
            present = False
        if not present:
            raise ArchlabError(
                f"store {self.where}: the file was deleted or moved while it was in use: put it back, or run again"
            )

    @outlasting
    def _rows(self, query: Executable) -> Sequence[AnyRow]:
        with self._read() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        self.check_present()
        with plain_errors(self.where, self._engine.url), self._engine.connect() as connection:
            if self._file is None:  # one round trip for each query: a transaction takes two more
                connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        self.check_present()
        with (
            plain_errors(self.where, self._engine.url),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection
