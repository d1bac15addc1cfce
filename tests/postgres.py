"""A PostgreSQL server of the tests' own: a fresh cluster in a folder of its own, gone when the tests end."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

_SMALL = ("shared_buffers=16MB", "max_connections=60", "autovacuum=off")


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, of the newest version that is installed; None without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """A server on a free port of this machine; root, whom PostgreSQL refuses, has another user run it."""

    def __init__(self, *, synced: bool = False) -> None:
        """Make a cluster and start it; one that is ``synced`` waits for its disk, which loses nothing when the power goes."""
        self.settings: tuple[str, ...] = (*_SMALL, "fsync=on" if synced else "fsync=off")
        folder = binaries()
        assert folder is not None
        self.binaries, self.home = folder, Path(tempfile.mkdtemp(prefix="archlab-postgres-"))
        self._as: list[str] = []
        if os.geteuid() == 0:
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = names.get("postgres") or names["nobody"]
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            os.chown(self.home, user.pw_uid, user.pw_gid)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self._call(
            "initdb",
            "--auth=trust",
            "--username=archlab",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            f"--pgdata={self.home}/data",
        )
        self._names = count(1)
        self.start()

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run([*self._as, self.binaries / program, *arguments], check=True, capture_output=True, cwd=self.home)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [part for setting in (*self.settings, f"unix_socket_directories={self.home}") for part in ("-c", setting)]
        command = [*self._as, str(self.binaries / "postgres"), "-D", f"{self.home}/data", "-p", str(self.port), *options]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
                return
            except Exception:
                assert self.process.poll() is None, (self.home / "log").read_text()
                assert time.monotonic() < deadline, (self.home / "log").read_text()
                time.sleep(0.02)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop it, as a restart does; ``at_once`` as a power cut does."""
        self.process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        self.process.wait(30)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement, not in a transaction."""
        import psycopg

        place = f"host=127.0.0.1 port={self.port} user=archlab dbname={database} connect_timeout=5"
        with psycopg.connect(place, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://archlab@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of this test process; skips where PostgreSQL or its driver is not installed."""
    if binaries() is None:
        pytest.skip("no PostgreSQL server is installed (Debian's package postgresql)")
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (`make .venv` installs it)")
    server = Server()
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop(at_once=True)
        shutil.rmtree(server.home, ignore_errors=True)


@pytest.fixture
def postgres(server: Server) -> str:
    """The URL of an empty database."""
    return server.database()
