"""Files that are written whole or not at all, and the folder that is kept between runs."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from archlab.errors import ArchlabError


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


def check_place(path: Path) -> None:
    """Refuse a path that no page can be written to.

    Raises:
        ArchlabError: it is a directory, there is none to write into, or the name is that of another format.
    """
    if path.is_dir():
        raise ArchlabError(f"report {path}: is a directory: give a file, for example {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ArchlabError(f"report {path}: there is no directory {path.parent}: create it first")
    if path.suffix.lower() == ".pdf":
        raise ArchlabError(
            f"report {path}: the page is HTML: give {path.with_suffix('.html')} and print it to PDF from a browser"
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file in place of the present one; if that fails or is interrupted, the present one stays.

    A symbolic link and the mode of the file are kept. What is no regular file (``/dev/null``, ``/dev/stdout``, a pipe) is
    written through.

    Raises:
        OSError: it cannot be written.
    """
    if _is_special(path):
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


def _is_special(path: Path) -> bool:
    """Whether a path leads to a device, a pipe or an open stream (``/dev/stdout``, also where it is a regular file)."""
    places = {path.parent, path.readlink().parent} if path.is_symlink() else {path.parent}
    streams = {Path("/dev/fd"), Path("/proc/self/fd")}
    return bool(places & streams) or (path.exists() and not path.is_file())
