"""Modules from outside archlab, which register layers and tasks as they are imported: of installed packages, and files."""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar

from archlab.errors import ArchlabError, in_one_line
from archlab.isolation import changed, in_child, restore, snapshot

Loaded = TypeVar("Loaded")

imported: list[str] = []
"""Modules of the files that were imported."""


def without_output(load: Callable[[], Loaded]) -> Loaded:
    """Result of ``load``, whose prints go to standard error: standard output has only what was asked for.

    What it changes of the process, such as the environment, is undone as far as can be: it is no business of other code.
    """
    before = snapshot()
    try:
        with redirect_stdout(sys.stderr):
            return load()
    finally:
        restore(before)


def import_outside(name: str) -> tuple[ModuleType, str]:
    """Imports a module that a command names, in a copy of this process first: there it may hang or end its process.

    Returns:
        The module, and what its import has changed of this process, which is undone as far as can be; empty if nothing.

    Raises:
        ArchlabError: it cannot be imported; says why, in one line.
    """
    before = snapshot()
    try:
        if name not in sys.modules:
            in_child(partial(_import, name), quiet=True)
        return without_output(lambda: (importlib.import_module(name), changed(before, started=False)))
    except (Exception, SystemExit) as error:
        raise ArchlabError(in_one_line(error)) from None


def _import(name: str) -> None:
    importlib.import_module(name)


@cache
def import_modules(package: str) -> None:
    """Imports the modules of ``archlab.layers`` or ``archlab.tasks``, so that all its families are registered."""
    for module in pkgutil.iter_modules(sys.modules[package].__path__):
        if not module.ispkg:
            importlib.import_module(f"{package}.{module.name}")


@cache
def import_installed(group: str) -> str:
    """Imports the modules of a package, and those that installed packages name as entry points of a group of its name.

    Returns:
        What messages add where a name is not known: the packages of which one cannot be imported, which is left out, and why.
    """
    import_modules(group)
    left_out: dict[str, str] = {}
    for entry in entry_points(group=group):
        try:
            without_output(entry.load)
        except (Exception, SystemExit) as error:
            left_out[entry.dist.name if entry.dist else entry.value] = in_one_line(error)
    kind = group.rpartition(".")[2]
    return "".join(f"; the {kind} of {package} cannot be imported: {reason}" for package, reason in left_out.items())


def import_file(path: str | Path, kind: Literal["layers", "tasks"]) -> None:
    """Imports a Python file: what it registers is known from then on, and its modules can be named by their path.

    The folder that it is imported from, that of the outermost package around it, joins ``sys.path``, which workers inherit.

    Args:
        path: the file.
        kind: what it is expected to bring, for messages.

    Raises:
        ArchlabError: it is no Python file, cannot be imported, changes what the process computes with, or has the name of
            another module.
    """
    import torch  # noqa: F401 - its state is watched

    try:
        file = Path(path).resolve()
        is_there = file.suffix == ".py" and file.is_file()
    except (OSError, ValueError):  # too long, or with NUL
        is_there = False
    if not is_there:
        raise ArchlabError(f"{kind} file {path}: there is no such Python file")
    root, parts = file.parent, [file.stem] if file.stem != "__init__" else []
    while (root / "__init__.py").exists():
        root, parts = root.parent, [root.name, *parts]
    if str(root) not in sys.path:
        sys.path.append(str(root))
    importlib.invalidate_caches()
    name = ".".join(parts)
    try:
        module, spoiled = import_outside(name)
    except ArchlabError as error:
        ends = str(error).startswith(("SystemExit", "ends the process, with status"))
        fix = "; put what ends the program under if __name__ == '__main__'" if ends else ""
        raise ArchlabError(f"{kind} file {path}: cannot be imported: {error}{fix}") from None
    origin = getattr(module, "__file__", None)
    if origin is None or Path(origin).resolve() != file:
        raise ArchlabError(f"{kind} file {path}: {name} is the name of another module, {origin or 'built in'}: rename the file")
    if spoiled:
        raise ArchlabError(f"{kind} file {path}: importing it changes {spoiled}: do that inside the layer's own code")
    imported.append(name)
