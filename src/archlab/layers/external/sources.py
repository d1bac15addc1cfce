"""Where layers from outside register: installed packages and files."""

import importlib
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from archlab.errors import ArchlabError, in_one_line
from archlab.layers.registry import registry

GROUP = "archlab.layers"
"""Entry points of this group name modules that register layers as they are imported."""

Loaded = TypeVar("Loaded")

imported: list[str] = []
"""Modules of the files that were imported."""
left_out: dict[str, str] = {}
"""Packages whose layers could not be imported, and why."""


def without_output(load: Callable[[], Loaded]) -> Loaded:
    """The result of ``load``, whose prints go to standard error: standard output has what was asked for."""
    with redirect_stdout(sys.stderr):
        return load()


def import_installed() -> None:
    """Import the modules that installed packages name as entry points; one that cannot be imported is left out."""
    for entry in entry_points(group=GROUP):
        try:
            without_output(entry.load)
        except (Exception, SystemExit) as error:
            left_out[entry.dist.name if entry.dist else entry.value] = in_one_line(error)


def import_file(path: str | Path) -> None:
    """Import a Python file: the layers that it registers are known from then on, and its modules can be named by their path.

    The folder that it is imported from, that of the outermost package around it, joins ``sys.path``, which workers inherit.

    Raises:
        ArchlabError: it is no Python file, cannot be imported, or has the name of another module.
    """
    file = Path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise ArchlabError(f"layers file {path}: there is no such Python file")
    registry()  # archlab's own layers have their names before others ask for one
    root, parts = file.parent, [file.stem] if file.stem != "__init__" else []
    while (root / "__init__.py").exists():
        root, parts = root.parent, [root.name, *parts]
    if str(root) not in sys.path:
        sys.path.append(str(root))
    importlib.invalidate_caches()
    name = ".".join(parts)
    try:
        origin = getattr(without_output(lambda: importlib.import_module(name)), "__file__", None)
    except (Exception, SystemExit) as error:
        fix = "; put what ends the program under if __name__ == '__main__'" if isinstance(error, SystemExit) else ""
        raise ArchlabError(f"layers file {path}: cannot be imported: {in_one_line(error)}{fix}") from None
    if origin is None or Path(origin).resolve() != file:
        raise ArchlabError(f"layers file {path}: {name} is the name of another module, {origin or 'built in'}: rename the file")
    imported.append(name)
