"""Files that are written whole or not at all, and the folder that is kept between runs."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archlab.errors import ArchlabError

SQLITE_HEADER = b"SQLite format 3\0"
"""The first bytes of a store in a file."""


def cache_folder() -> Path:
    """The folder that archlab keeps for its user: ``archlab`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archlab"


def read_text(path: Path, what: str) -> str:
    """The text of a file that a user gives; refuses one that cannot be read, and calls it ``what``."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not text in UTF-8" if isinstance(error, UnicodeDecodeError) else (error.strerror or "no such file").lower()
        raise ArchlabError(f"{what} {path}: cannot be read: {reason}") from None


def check_place(path: Path, what: str = "report") -> None:
    """Refuse a path that no file can be written to; ``-`` is standard output.

    Raises:
        ArchlabError: it is a directory, a database or a link that leads nowhere, there is no directory to write into, or a
            report has the name of another format.
    """
    if path.is_dir():
        raise ArchlabError(f"{what} {path}: is a directory: give a file in it")
    if not path.parent.is_dir():
        raise ArchlabError(f"{what} {path}: there is no directory {path.parent}: create it first")
    if what == "report" and path.suffix.lower() == ".pdf":
        raise ArchlabError(
            f"report {path}: the page is HTML: give {path.with_suffix('.html')} and print it to PDF from a browser"
        )
    if is_stream(path):
        return
    with _refusing(path, what), suppress(FileNotFoundError), path.open("rb") as present:
        if present.read(16) == SQLITE_HEADER:
            raise ArchlabError(f"{what} {path}: is a database, perhaps a store: it is left as it is; give another name")


def write_whole(path: Path, text: str, what: str = "file") -> None:
    """Write a file in place of the present one; if that fails or is interrupted, the present one stays.

    A symbolic link and the mode of the file are kept. Standard output (``-``) and what is no regular file (``/dev/null``, a
    pipe) are written through.

    Raises:
        ArchlabError: it cannot be written, see :func:`check_place`; ``what`` is what the message calls it.
    """
    check_place(path, what)
    if str(path) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()  # what follows may say that it is written
        return
    with _refusing(path, what):
        if is_stream(path):
            with path.open("a", encoding="utf-8") as stream:
                stream.write(text)
            return
        target = path.resolve()
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            temporary.write_text(text, encoding="utf-8")
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        finally:
            with suppress(OSError):  # it has been renamed
                temporary.unlink()


def is_stream(path: Path) -> bool:
    """Whether a path leads to standard output (``-``), a device, a pipe or an open stream (also where that is a regular file)."""
    places = {path.parent, path.readlink().parent} if path.is_symlink() else {path.parent}
    streams = {Path("/dev/fd"), Path("/proc/self/fd")}
    return str(path) == "-" or bool(places & streams) or (path.exists() and not path.is_file())


@contextmanager
def _refusing(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of the system into one line; a reader that has gone away is not one."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ArchlabError(f"{what} {path}: cannot be written: {error.strerror}") from None
