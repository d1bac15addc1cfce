"""Files that are written whole or not at all, and the folder that is kept between runs."""

import os
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """What archlab keeps for its user: ``archlab`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archlab"


def write_whole(path: Path, text: str) -> None:
    """Write a file in place of what is there; where that fails or is interrupted, what was there stays.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # it is in place
            temporary.unlink()
