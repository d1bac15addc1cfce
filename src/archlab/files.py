"""Files that are written whole or not at all, and the folder that is kept between runs."""

import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from archlab.errors import ArchlabError

SQLITE_HEADER = b"SQLite format 3\0"
"""The first bytes of a store in a file."""
_LONGEST_TEXT = 32 << 20
_NO_PAGES = {".pdf", ".png", ".svg", ".jpg", ".md", ".csv", ".json"}


def cache_folder() -> Path:
    """The folder that archlab keeps for its user: ``archlab`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``.

    An ArchlabError says that there is no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archlab"
    except RuntimeError:  # a user whom the system does not know, as in a container
        raise ArchlabError("there is no home folder to keep prepared corpora and speeds in: set XDG_CACHE_HOME") from None


def is_yaml(name: str | os.PathLike[str]) -> bool:
    """Whether it is the path of a YAML file, by its ending."""
    return Path(name).suffix.lower() in (".yaml", ".yml")


def read_text(path: Path, what: str) -> str:
    """The text of a file that a user gives; refuses one that cannot be read or is longer than 32 MiB, and calls it ``what``."""
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_TEXT + 1)
        if len(data) > _LONGEST_TEXT:
            raise ArchlabError(f"{what} {path}: longer than {_LONGEST_TEXT >> 20} MiB: is it the right file?")
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise ArchlabError(f"{what} {path}: cannot be read: {(error.strerror or 'no such file').lower()}") from None
    except UnicodeDecodeError:
        raise ArchlabError(f"{what} {path}: cannot be read: not text in UTF-8") from None
    except ArchlabError:
        raise
    except ValueError:  # its path holds NUL
        raise ArchlabError(f"{what} {str(path)!r}: cannot be read: no path holds NUL") from None


def file_checksum(path: Path) -> int:
    """CRC-32 of a file: it tells damage, not an attack."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def check_place(path: Path, what: str = "report") -> None:
    """Refuse a path that no file can be written to; ``-`` is standard output.

    Raises:
        ArchlabError: it is a directory, a database or a link that leads nowhere, there is no directory to write into, or a
            report has the name of another format.
    """
    with _refusing(path, what):
        is_directory, has_directory = path.is_dir(), path.parent.is_dir()
        path.exists()
    if is_directory:
        raise ArchlabError(f"{what} {path}: is a directory: give a file in it")
    if not has_directory:
        raise ArchlabError(f"{what} {path}: there is no directory {path.parent}: create it first")
    if what == "report" and path.suffix.lower() in _NO_PAGES:
        fix = " and print it to PDF from a browser" if path.suffix.lower() == ".pdf" else ""
        raise ArchlabError(f"report {path}: the page is HTML: give {path.with_suffix('.html')}{fix}")
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
        stdout: Any = sys.stdout
        if hasattr(stdout, "buffer"):  # a document is UTF-8, whatever the terminal takes
            stdout.flush()
            stdout.buffer.write(text.encode(errors="backslashreplace"))
        else:
            stdout.write(text)
        stdout.flush()  # what follows may say that it is written
        return
    with _refusing(path, what):
        if is_stream(path):
            with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            return
        target = path.resolve()
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # halves of surrogate pairs, from files
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
    except (BrokenPipeError, ArchlabError):
        raise
    except OSError as error:
        raise ArchlabError(f"{what} {path}: cannot be written: {error.strerror}") from None
    except ValueError:
        raise ArchlabError(f"{what} {str(path)!r}: cannot be written: no path holds NUL") from None
