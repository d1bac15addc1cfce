"""Files are written whole; links, modes and special files stay what they are."""

import os
import pwd
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archlab.errors import ArchlabError
from archlab.files import cache_folder, check_place, write_whole
from archlab.mad.estimate import remember, remembered


def test_a_device_stays_a_device(tmp_path: Path):
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs the right to make a device")
    write_whole(null, "a page")
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_pipe_is_written_through(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "a page")
    reader.join(10)
    assert read == ["a page"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["stdout", "/dev/fd/1"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_is_written_through(tmp_path: Path, name: str, into: str):
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    code = (
        f"from pathlib import Path; from archlab.files import write_whole; write_whole(Path({str(tmp_path / name)!r}), 'a page')"
    )
    with (tmp_path / "out").open("w+") as file:
        inode = os.fstat(file.fileno()).st_ino
        out = subprocess.PIPE if into == "pipe" else file
        done = subprocess.run([sys.executable, "-c", code], stdout=out, text=True, check=True)
    text = done.stdout if into == "pipe" else (tmp_path / "out").read_text()
    assert text == "a page"
    assert (tmp_path / "out").stat().st_ino == inode


def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    (tmp_path / "dangling").symlink_to("later")
    write_whole(tmp_path / "dangling", "new")
    assert (tmp_path / "later").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "later", "link", "target"]


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int):
    path = tmp_path / "page.html"
    path.write_text("old")
    path.chmod(mode)
    write_whole(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(("name", "fix"), [("page.pdf", " and print it to PDF"), ("page.PDF", " and print"), ("page.png", "$")])
def test_a_page_with_the_name_of_another_format_is_refused(tmp_path: Path, name: str, fix: str):
    with pytest.raises(ArchlabError, match=rf"{name}: the page is HTML: give .*page\.html{fix}"):
        check_place(tmp_path / name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"SQLite format 3\0 and more"), "is a database, perhaps a store"),
        (lambda path: path.symlink_to(path), "cannot be written: Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "is a directory"),
    ],
)
def test_what_must_not_be_replaced_is_refused_and_stays(tmp_path: Path, make: Callable[[Path], object], reason: str):
    path = tmp_path / "page.html"
    make(path)
    before = path.lstat()
    for write in (check_place, lambda path: write_whole(path, "new")):
        with pytest.raises(ArchlabError, match=reason):
            write(path)
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_dash_is_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    write_whole(Path("-"), "a page")
    assert capsys.readouterr().out == "a page"
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ArchlabError, match=r"there is no home folder .*: set XDG_CACHE_HOME"):
        cache_folder()
    assert remembered() == (None, {})


@pytest.mark.parametrize("folder", ["/dev/null/x", "/proc/x"])
def test_speeds_are_not_kept_where_nothing_can_be_written(folder: str, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    remember({"attention": 1e9})
    assert capsys.readouterr().err.startswith("the speeds are not kept for estimates: ")
    assert remembered() == (None, {})
