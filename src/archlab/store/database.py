"""Opens the database that a path or URL names, and says in one line why it cannot."""

import errno
import fcntl
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from reprlib import repr as short
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select
from sqlalchemy import inspect as inspect_database
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError, StatementError

from archlab.errors import ArchlabError
from archlab.store.record import dump_json, load_json
from archlab.store.schema import SCHEMA_VERSION, meta, metadata

BUSY_SECONDS = 30
"""How long a writer waits for another one to let go of an SQLite store, and everybody for a server that does not answer."""
_SMALLEST = 512
"""Bytes of the smallest SQLite database; a shorter file passes for an empty one."""
_LITTLE_SPACE = 64 << 10
"""Bytes of a disk that is full: SQLite needs that many beside a store."""
_SERVER_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
    "fallback_application_name": "archlab",
}
"""Options of libpq, as far as the URL gives no others: without them a link that is cut is noticed after hours."""

Self = TypeVar("Self")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class NoStoreError(ArchlabError):
    """Nothing is stored at the location yet, and the caller may not create a store."""


class LostError(ArchlabError):
    """The server cannot be reached, or has cut a transaction short, which may succeed when it is tried again."""


def outlasting(
    method: Callable[Concatenate[Self, Parameters], Result],
) -> Callable[Concatenate[Self, Parameters], Result]:
    """Make a method try again for :data:`BUSY_SECONDS` when the server is lost, as in a restart.

    It must do no harm twice: a transaction whose confirmation was lost may have been committed.
    """

    @wraps(method)
    def again(self: Self, /, *args: Parameters.args, **options: Parameters.kwargs) -> Result:
        deadline, pause = 0.0, 0.05
        while True:
            try:
                return method(self, *args, **options)
            except LostError:
                deadline = deadline or time.monotonic() + BUSY_SECONDS
                if time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 1.0)

    return again


def open_database(
    location: str | os.PathLike[str], *, create: bool, filled_by: str, any_version: bool = False
) -> tuple[Engine, str]:
    """Connect to the store at ``location`` and check that it is one of this schema, unless it may be of ``any_version``.

    A missing store is created if ``create`` says so; else the error names the command that fills it, ``filled_by``. Anything
    else that is found there is left as it is, and refused. Returns the engine, and the location as messages name it.
    """
    url = _parse(location)
    path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    where = shown(location)
    if path is not None:
        _check_file(path, create=create, filled_by=filled_by)
        if create:
            _check_locks(path)
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        if not create and not writable and not path.with_name(f"{path.name}-wal").exists():
            # Nobody can write to it, so it seems; SQLite would write files of its own beside it.
            url = URL.create("sqlite", database=path.absolute().as_uri(), query={"immutable": "1", "uri": "true"})
    try:
        engine = create_engine(url, json_serializer=dump_json, json_deserializer=load_json, **_server_options(url))
    except ModuleNotFoundError as error:
        fix = "install psycopg[binary]" if error.name == "psycopg" else f"install {error.name}"
        raise ArchlabError(f"store {where}: the database driver {error.name} is missing: {fix}") from None
    except Exception as error:  # its message may tell secrets of the URL
        raise ArchlabError(f"store {where}: the driver refuses the URL ({type(error).__name__}): correct it") from None
    try:
        with plain_errors(where, url):
            if path is not None:
                _tune_sqlite(engine, write_ahead=create)
            _check_schema(engine, where, create=create, filled_by=filled_by, any_version=any_version)
    except BaseException:
        engine.dispose()
        raise
    return engine, where


def _server_options(url: URL) -> dict[str, Any]:
    """The options of an engine for a server: one connection for each process, and what notices that it is lost."""
    if url.get_backend_name() == "sqlite":
        return {}
    libpq = url.get_driver_name() in ("psycopg", "psycopg2")
    options = {name: value for name, value in _SERVER_OPTIONS.items() if name not in url.query} if libpq else {}
    return {"pool_size": 1, "pool_timeout": BUSY_SECONDS, "connect_args": options}


def shown(location: str | os.PathLike[str]) -> str:
    """The location as messages name it: a path, or of a URL scheme, host and database; refuses what is no location."""
    url = _parse(location)
    return str(Path(url.database or "")) if url.get_backend_name() == "sqlite" else _masked(os.fspath(location))


_URL = re.compile(r"([a-z][\w+.-]*)://([^?#;]*@)?([\w.-]*(?::\d+)?(?:/[\w.%-]*)*)([?#;][^@]*)?", re.IGNORECASE)
_NO_PATH = re.compile(
    r"[a-z][\w+.-]+:|//|.*:.*@|.*=.*[;\s]|.*[;\s].*=|.*(pass\w*|pwd|secret|token|key)\s*=", re.IGNORECASE | re.DOTALL
)
"""URLs with a slash missing, and parameters of drivers."""


def _masked(text: str) -> str:
    """Scheme, host and database of a URL: what else is in it may be a secret."""
    parts = _URL.fullmatch(text.strip())
    if parts is None:
        return f"{text.strip().partition('://')[0]}://***" if re.match(r"\s*[a-z][\w+.-]*://", text, re.IGNORECASE) else "***"
    scheme, user, place, rest = parts.groups()
    return f"{scheme}://{'***@' if user else ''}{place}{f'{rest[0]}***' if rest else ''}"


def _is_path(location: str | os.PathLike[str]) -> bool:
    """Whether it is meant as a path: it is there, says so, or looks like nothing else."""
    text = os.fspath(location)
    written_out = text.startswith(("./", "../")) or (os.path.isabs(text) and Path(text).parent.is_dir())
    return not isinstance(location, str) or os.path.exists(text) or written_out or not _NO_PATH.match(text)


def _parse(location: str | os.PathLike[str]) -> URL:
    text = os.fspath(location)
    form = "a URL such as postgresql+psycopg://user@host/database"
    if "://" not in text:
        if not _is_path(location):
            raise ArchlabError(f"store ***: no URL and no path: give {form}, or write ./ before the name of a file")
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # ValueError: a port that is no number
        why = "there is no such driver" if isinstance(error, NoSuchModuleError) else "it cannot be read"
        raise ArchlabError(f"store {_masked(text)!r}: {why}: give a path, or {form}") from None
    if "@" in (url.host or ""):  # which messages of the driver would tell
        raise ArchlabError(f"store {_masked(text)!r}: an @ stands in the user or the password: write it as %40")
    if url.get_backend_name() == "sqlite" and (not url.database or url.database == ":memory:"):
        raise ArchlabError(f"store {_masked(text)!r}: a store in memory cannot be shared or resumed: give a path")
    return url


def _check_file(path: Path, *, create: bool, filled_by: str) -> None:
    """Look at what the path holds without changing a byte of it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # too long, in a folder that may not be read, or with NUL
        reason = error.strerror if isinstance(error, OSError) else "no path holds NUL"
        raise ArchlabError(f"store {str(path)!r}: is no place for a file ({reason}): choose another") from None
    if path.is_dir():
        raise ArchlabError(f"store {path} is a directory: give a file, such as {path / 'archlab.db'}")
    if not path.parent.is_dir():
        raise ArchlabError(f"store {path}: the folder {path.parent} does not exist: create it or choose another place")
    if not path.exists():
        if not create:
            raise NoStoreError(f"store {path} does not exist: `{filled_by} --store {path}` makes it")
        if not os.access(path.parent, os.W_OK):
            raise ArchlabError(f"store {path}: the folder {path.parent} is not writable: choose another place")
        return
    # Not by a look at its first bytes: whoever closes a file gives up all locks that his process has on it, SQLite's too.
    found = path.stat()
    state, tables = _look_once(path.absolute(), (found.st_ino, found.st_size, found.st_mtime_ns))
    if "not a database" in state or 0 < path.stat().st_size < _SMALLEST:
        raise ArchlabError(f"store {path} is not an SQLite database: it is left as it is; choose another file")
    if "unable to open" in state:
        raise ArchlabError(f"store {path} cannot be read: check the permissions of the file and its folder")
    if state != "ok":
        line = " ".join(state.split())
        raise ArchlabError(f"store {path} is damaged ({line}): it is left as it is; restore a copy or choose another file")
    if tables and not {"meta", "trials"} <= tables:
        raise ArchlabError(f"store {path} is an SQLite database of something else: it is left as it is; choose another file")
    if not tables and not create:
        raise NoStoreError(f"store {path} is empty: `{filled_by} --store {path}` fills it")


@lru_cache(maxsize=16)
def _look_once(path: Path, _: tuple[int, int, int]) -> tuple[str, set[str]]:
    """As :func:`_look_inside`: a command that opens a store several times reads all of it once, as long as it is the same file,
    of the same size, last changed at the same time."""
    return _look_inside(path)


def _look_inside(path: Path) -> tuple[str, set[str]]:
    """``"ok"`` or what is damaged, and the names of the tables."""
    log = path.with_name(f"{path.name}-wal")
    # Of a file that no one has open, SQLite may believe that no one will: then it leaves no files of its own beside it.
    alone = not log.exists()
    how = "immutable=1" if alone else "mode=ro"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS)) as connection:
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error) and shutil.disk_usage(path.absolute().parent).free < _LITTLE_SPACE:
            # What a killed process left beside the store cannot be read without writing.
            raise ArchlabError(f"store {path}: {_REASONS['disk is full']}") from None
        state, tables = str(error), set()
    if state != "ok" and alone and log.exists():  # a run has opened it meanwhile
        return _look_inside(path)
    return state, tables


def _check_locks(path: Path) -> None:
    """Refuse a folder on a file system without locks: SQLite would take that for another process that never lets go."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # a folder that takes no file at all is for SQLite to refuse
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no room for the files that SQLite needs beside a store
            raise ArchlabError(f"store {path}: {_REASONS['disk is full']}") from None
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
            raise ArchlabError(
                f"store {path}: the file system has no locks ({error.strerror}), without which a store is damaged: choose a "
                "local disk, or a database server (docs/store.md)"
            ) from None


def _tune_sqlite(engine: Engine, *, write_ahead: bool) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: Any) -> None:
        connection.text_factory = lambda data: data.decode(errors="replace")  # else such text ends the whole query
        connection.isolation_level = None  # the driver's own transactions cannot begin as writers
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA synchronous = FULL")  # a finished trial survives a power cut, too

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that turns writer fails at once if another has written since: writers begin as such.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    if write_ahead:
        _enable_write_ahead_log(engine)


def _enable_write_ahead_log(engine: Engine) -> None:
    """Readers and a writer work at once; the switch itself needs the file alone and does not wait for it."""
    connection = engine.raw_connection()
    deadline = time.monotonic() + BUSY_SECONDS
    try:
        cursor = connection.cursor()
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) and any(sign in str(error) for sign in _REASONS):
                    raise  # the disk is full, say
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise ArchlabError(f"store: no write-ahead log on this file system: {error}") from None
                time.sleep(0.02)
    finally:
        connection.close()


def _check_schema(engine: Engine, where: str, *, create: bool, filled_by: str, any_version: bool) -> None:
    version = _schema_version(engine)
    if version is None and not create and inspect_database(engine).has_table("trials"):
        raise ArchlabError(f"store {where} is damaged (no schema version): `archlab run` on it writes that again")
    if version is None and not create:
        raise NoStoreError(f"store {where} is empty: `{filled_by} --store {where}` fills it")
    if version is None or (create and version == str(SCHEMA_VERSION) and not _is_complete(engine)):
        try:
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                metadata.create_all(connection)
                if connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version")) is None:
                    connection.execute(meta.insert().values(name="schema_version", value=str(SCHEMA_VERSION)))
        except DBAPIError:
            if _schema_version(engine) is None or not _is_complete(engine):  # not another run that created it first
                raise
        version = _schema_version(engine)
    if version != str(SCHEMA_VERSION) and not any_version:
        earlier = version_number(version) < SCHEMA_VERSION
        fix = f"`archlab store migrate --store {where}` upgrades it" if earlier else "upgrade archlab or choose another store"
        raise ArchlabError(f"store {where} has schema version {version}, this archlab reads {SCHEMA_VERSION}: {fix}")


def _is_complete(engine: Engine) -> bool:
    return set(metadata.tables) <= set(inspect_database(engine).get_table_names())


def version_number(version: Any) -> int:
    """The number of a stored version of the schema; refuses what is none."""
    if not (isinstance(version, str) and re.fullmatch("[0-9]{1,9}", version)):
        raise ArchlabError(f"the store is damaged (schema version {short(version)}): restore a copy")
    return int(version)


def _schema_version(engine: Engine) -> Any:
    with engine.connect() as connection:
        if not inspect_database(connection).has_table("meta"):
            return None
        return connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version"))


_REASONS = {
    "disk is full": "the disk is full: free some space and run the same command again; what is stored is intact",
    "disk I/O error": "cannot be written (disk I/O error; is the disk full?): what is stored is intact",
    "readonly": "is not writable: change its permissions or choose another store",
    "unable to open": "cannot be opened: check the permissions of the file and its folder",
    "database is locked": f"has been locked by another process for {BUSY_SECONDS} s: end it and try again",
    "malformed": "is damaged: restore a copy or choose another file",
    "not a database": "is not an SQLite database: choose another file",
}


@contextmanager
def plain_errors(where: str, url: URL) -> Iterator[None]:
    """Turn the database's errors into one line for the person who runs the command, without what its URL keeps secret."""
    try:
        yield
    except (StatementError, sqlite3.Error) as error:  # the latter while a connection is made
        text = " ".join(str(error.orig if isinstance(error, StatementError) else error).split())
        for secret in (url.password, *url.normalized_query.values()):
            for form in (secret,) if isinstance(secret, str) else secret or ():
                text = text.replace(form, "***").replace(quote(form, safe=""), "***") if form else text
        if _is_lost(error):
            raise LostError(f"store {where}: the server cannot be reached ({text}): what is stored is intact") from None
        reason = next((reason for sign, reason in _REASONS.items() if sign in text), text)
        raise ArchlabError(f"store {where}: {reason}") from None


_PASSING = ("08", "57P", "40", "53300")
"""How the SQLSTATE of errors begins that pass: no connection, a restart, a deadlock, too many connections."""


def _is_lost(error: Exception) -> bool:
    """Whether the server was lost, and may come back."""
    if not isinstance(error, OperationalError | InterfaceError) or isinstance(error.orig, sqlite3.Error):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(_PASSING)
