import errno
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url
from tests.fake_training import make_trials
from tests.synthetic_records import PROVENANCE, result

from archlab.errors import ArchlabError
from archlab.mad.store import TrialStore
from archlab.store import database as location
from archlab.store.database import plain_errors, shown

ROOT = Path(__file__).parents[2]


def refusal(location, **options) -> str:
    with pytest.raises(ArchlabError) as caught:
        TrialStore(location, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("create", [True, False])
def test_a_directory_is_refused(tmp_path, create):
    assert "is a directory: give a file" in refusal(tmp_path, create=create)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("create", [True, False])
def test_a_missing_folder_is_refused(tmp_path, create):
    assert "does not exist: create it" in refusal(tmp_path / "no" / "archlab.db", create=create)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_store_is_not_made_by_a_reader(tmp_path):
    path = tmp_path / "archlab.db"
    assert f"`archlab run SPEC --store {path}`" in refusal(path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_store_but_may_become_one(tmp_path):
    path = tmp_path / "archlab.db"
    path.touch()
    assert "is empty" in refusal(path, create=False)
    assert path.read_bytes() == b""
    with TrialStore(path) as store:
        assert store.records() == []


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("content", [b"x", b"name,score\n" * 1000, bytes(5000)], ids=["a byte", "a table", "zeros"])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, content, create):
    path = tmp_path / "archlab.db"
    path.write_bytes(content)
    assert "is not an SQLite database" in refusal(path, create=create)
    assert contents(tmp_path) == {str(path): content}


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_store_is_left_as_it_is(tmp_path, damage, create):
    path = tmp_path / "archlab.db"
    with TrialStore(path) as store:
        for trial in make_trials(20):
            store.finish(trial, result(trial, list(range(500))), PROVENANCE)
    whole = path.read_bytes()
    half = len(whole) // 2
    damaged = whole[: half + 100] if damage == "cut" else whole[:half] + bytes(range(256)) * 32 + whole[half + 8192 :]
    path.write_bytes(damaged)
    assert "is damaged" in refusal(path, create=create)
    assert path.read_bytes() == damaged


def test_a_database_of_something_else_is_left_as_it_is(tmp_path):
    path = tmp_path / "books.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE books (title TEXT)")
    connection.close()
    before = contents(tmp_path)
    assert "is an SQLite database of something else" in refusal(path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("2", "has schema version 2, this archlab reads 1: upgrade archlab"),
        ("x", "the store is damaged (schema version 'x'): restore a copy"),
        (b"\xff\xfe", "the store is damaged (schema version b'\\xff\\xfe'): restore a copy"),
        ("9" * 5000, "the store is damaged (schema version '999"),
        ("", "the store is damaged (schema version ''): restore a copy"),
    ],
)
def test_another_schema_is_left_as_it_is(tmp_path, version, reason):
    path = tmp_path / "archlab.db"
    TrialStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (version,))
    connection.close()
    before = path.read_bytes()
    assert reason in refusal(path)
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is writable for root")
def test_a_folder_that_is_not_writable_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert "is not writable" in refusal(tmp_path / "archlab.db")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("oracel://host/db", "oracel"),
        ("postgresql+nothing://host/db", "nothing"),
        ("://", "give a path, or a URL"),
    ],
)
def test_a_url_that_names_no_store_is_refused(url, message):
    assert message in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:hunter2@host/db",
        "postgres://user:hunt/er2@host/db",
        "oracel://user:hunter2@host/db",
        "postgresql+psycopg://user:hunter2@host:port/db",
        "postgresql+psycopg://user:hunter2@127.0.0.1:1/db",
        "postgresql+psycopg://127.0.0.1:1/db?user=u&password=hunter2",
        "oracel://host/db?password=hunter2&user=u",
        "mssql+nothing:///?odbc_connect=DRIVER%3D%7Bx%7D%3BUID%3Du%3BPWD%3Dhunter2",
        "oracel://host/db?options=-cpassword%3Dhunter2",
        "postgres:u:hunter2@h",
        "mysql+pymysql:u:hunter2@h/db",
        "postgresql+nothing://u@host/db?sslpassword=hunter2",
        "postgresql:/u:hunter2@h/db",
        "postgresql//u:hunter2@h/db",
        "u:hunter2@h/db",
        "//u:hunter2@h/db",
        "snowflake://u@h/db?private_key_passphrase=hunter2",
        "foo://h/db?token=hunter2",
        "foo://h/db#hunter2",
        "foo://hunter2@h/db",
        "foo://u:hunt?er2@h/db",
        "foo://h/db?a=b@hunter2",
        "postgresql+psycopg://u:hunt@er2@127.0.0.1:1/db",
        "postgresql://h:hunter2",
        "postgresql://u:hunter2@[::1/db",
        "host=h password=hunter2",
        "odbc:Driver={x};Uid=u;Pwd=hunter2",
        "file:hunter2",
        "sqlite:///x.db?password=hunter2",
        "sqlite://u:hunter2@h/",
    ],
)
def test_no_message_tells_a_password(url):
    message = refusal(url)
    assert "hunt" not in message
    assert "er2" not in message


SHOWN = {
    "archlab.db": "archlab.db",
    "runs:1@home.db": "runs:1@home.db",
    "sqlite:///archlab.db?x=1": "archlab.db",
    "postgresql+psycopg://host:5432/db": "postgresql+psycopg://host:5432/db",
    "postgresql+psycopg://u:pw@host:5432/db?sslmode=require": "postgresql+psycopg://***@host:5432/db?***",
    "postgresql+psycopg://u:pw@host/odd name": "postgresql+psycopg://***",
}


@pytest.mark.parametrize("location", SHOWN)
def test_a_location_is_shown_without_what_may_be_secret(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs:1@home.db").touch()
    assert shown(location) == SHOWN[location]


def test_a_path_that_looks_like_a_url_may_be_written_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArchlabError, match=r"^store \*\*\*: no URL and no path: .*, or write ./ before the name of a file$"):
        TrialStore("runs:a@b.db")
    TrialStore("./runs:a@b.db").close()
    TrialStore("runs:a@b.db", create=False).close()


def test_what_a_driver_says_has_no_secret():
    url = make_url("postgresql://u:hun%40ter2@h/db?token=to%2Fken")
    with pytest.raises(ArchlabError) as refused, plain_errors("s", url):
        raise sqlite3.OperationalError("cannot connect as u with hun@ter2 or hun%40ter2 and to/ken")
    assert str(refused.value) == "store s: cannot connect as u with *** or *** and ***"
    assert "ter2" not in "".join(traceback.format_exception(refused.value))


def test_a_url_and_a_path_name_the_same_store(tmp_path):
    (trial,) = make_trials(1)
    with TrialStore(f"sqlite:///{tmp_path}/archlab.db") as store:
        store.claim([trial], 1)
    with TrialStore(tmp_path / "archlab.db", create=False) as again:
        assert [record.key for record in again.records()] == [trial.key]


def test_a_path_may_look_odd(tmp_path):
    path = tmp_path / "50%25 of ärch?lab#1.db"
    TrialStore(path).close()
    with TrialStore(path, create=False) as again:
        assert again.records() == []
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_store_that_is_read_while_it_is_written_does_not_block(tmp_path):
    (trial,) = make_trials(1)
    with TrialStore(tmp_path / "archlab.db") as writer, TrialStore(tmp_path / "archlab.db", create=False) as reader:
        with writer._write():
            assert reader.records() == []
        writer.claim([trial], 1)
        assert len(reader.records()) == 1


FILL = """
import resource, signal, sys
from archlab.errors import ArchlabError
from archlab.mad.store import TrialStore
from tests.fake_training import make_trials
from tests.synthetic_records import result

trials = make_trials(200)
with TrialStore(sys.argv[1]) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        for trial in trials:
            store.finish(trial, result(trial, [((i * 7919 + trial.seed) % 1009) / 1009 for i in range(1280)]), {})
            print(trial.key)
    except ArchlabError as error:
        sys.exit(str(error))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on the size of files")
def test_a_full_disk_is_one_line_and_what_was_stored_is_intact(tmp_path):
    path = tmp_path / "archlab.db"
    done = subprocess.run([sys.executable, "-c", FILL, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"store {path}" in done.stderr
    assert "disk" in done.stderr
    assert "is intact" in done.stderr
    told = done.stdout.split()
    assert 0 < len(told) < 200
    with TrialStore(path) as store:
        assert [record.key for record in store.records()] == told
        (trial,) = make_trials(1, start=999)
        assert store.claim([trial], 1) == [trial]


def test_a_store_that_was_put_away_can_be_read(tmp_path, monkeypatch):
    path = tmp_path / "archive" / "archlab.db"
    path.parent.mkdir()
    trial = make_trials(1)[0]
    with TrialStore(path) as store:
        store.finish(trial, result(trial, [1]), {})
    writable = location.os.access
    monkeypatch.setattr(location.os, "access", lambda place, mode: mode != os.W_OK and writable(place, mode))
    before = path.read_bytes()
    with TrialStore(path, create=False) as store:
        assert [record.job for record in store.records()] == [trial]
        assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_what_the_database_says_while_it_is_opened_is_one_line(tmp_path, monkeypatch):
    def refuse(engine):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(location, "_enable_write_ahead_log", refuse)
    with pytest.raises(ArchlabError, match=r"^store .*archlab.db: is not writable: change its permissions"):
        TrialStore(tmp_path / "archlab.db")


OPENED_AND_CLOSED = """
import sys
from archlab.mad.store import TrialStore
with TrialStore(sys.argv[1]) as store:
    assert store.records() == []
"""


def test_a_store_that_is_opened_twice_keeps_its_locks(tmp_path):
    path = tmp_path / "archlab.db"
    (trial,) = make_trials(1)
    with TrialStore(path) as store:
        TrialStore(path).close()
        subprocess.run([sys.executable, "-c", OPENED_AND_CLOSED, str(path)], cwd=ROOT, check=True)
        store.finish(trial, result(trial, [1]), {})
        with TrialStore(path, create=False) as other:  # which the other process must not have parted from this one
            assert [record.job for record in other.records()] == [trial]


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(location.fcntl, "lockf", refuse)
    assert "archlab.db: the file system has no locks (No locks available), without which a store is damaged" in refusal(
        tmp_path / "archlab.db"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_second_machine_on_one_file_is_refused_and_the_first_goes_on(tmp_path):
    trials = make_trials(3)
    with TrialStore(tmp_path / "archlab.db") as store, TrialStore(tmp_path / "archlab.db") as other:
        other.owner = replace(other.owner, machine="node7 another-boot pid:[1]")
        assert store.claim(trials, 1) == trials[:1]
        with pytest.raises(
            ArchlabError, match=r"another machine, .*, computes with this file: machines can share a database server"
        ):
            other.claim(trials, 1)
        store.heartbeat()
        assert store.claim(trials, 1) == trials[1:2]
        other.owner = replace(store.owner, id="container", machine=f"container {store.owner.kernel} pid:[7]")
        assert other.claim(trials, 1) == trials[2:]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_is_called_a_full_disk_by_writers_and_by_the_next_readers(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be made here")
    try:
        shutil.copy(Path(__file__).parent.parent / "fixtures" / "smoke.db", disk / "archlab.db")
        shutil.copy(disk / "archlab.db", disk / "left.db")
        leave = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode = WAL'); "
        leave += "c.execute('UPDATE meta SET value = value'); c.commit(); os._exit(0)"
        subprocess.run([sys.executable, "-c", leave, disk / "left.db"], check=True)
        (disk / "left.db-shm").unlink(missing_ok=True)  # as after the machine was off
        with suppress(OSError), (disk / "rest").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(ArchlabError, match=r"archlab.db: the disk is full: free some space"):
            TrialStore(disk / "archlab.db")
        for create in (False, True):
            with pytest.raises(ArchlabError, match=r"left.db: the disk is full: free some space"):
                TrialStore(disk / "left.db", create=create)
        (disk / "rest").unlink()
        with TrialStore(disk / "left.db") as store:
            assert len(store.records()) == 36
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOENT, "cannot be opened: check the permissions of the file and its folder"),  # as /proc
        (errno.ENOSPC, "the disk is full: free some space"),  # without room for another file
    ],
)
def test_a_folder_that_takes_no_file_is_one_line(tmp_path, monkeypatch, number, reason):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    def unable(*_):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(location, "_enable_write_ahead_log", unable)
    assert f"archlab.db: {reason}" in refusal(tmp_path / "archlab.db")
