"""Layers that a notebook's cell defines: their code is put into a file, because keys and workers read files."""

import ast
import builtins
import hashlib
import importlib
import linecache
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from archlab.errors import ArchlabError, in_one_line
from archlab.files import cache_folder, write_whole

PREFIX = "archlab_cell_"
"""First part of the names of the modules that cells become; a hash of their code follows."""


def is_without_file(module: str) -> bool:
    """Whether a module is a notebook, an interactive session or standard input."""
    return module == "__main__" and not Path(getattr(sys.modules[module], "__file__", None) or "").is_file()


def class_from_cell(config: type, source: str) -> Any:
    """The class of the same name in a module that holds the definitions of its cell.

    The module lies in archlab's cache folder, which joins ``sys.path``; workers inherit that. It has the cell's functions,
    classes and constants and the imports that they need, not what the cell runs beside.

    Args:
        config: the class as the cell defines it.
        source: the name under which Python knows the source of the cell.

    Raises:
        ArchlabError: the source is not known, or needs what another cell defines.
    """
    try:
        code = _definitions("".join(linecache.getlines(source)))
        if f"class {config.__qualname__}" not in code:
            raise ArchlabError("its source is not known")
        name = PREFIX + hashlib.sha256(code.encode()).hexdigest()[:16]
        folder = cache_folder() / "cells"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{name}.py", code)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        importlib.invalidate_caches()
        return getattr(importlib.import_module(name), config.__qualname__)
    except (Exception, SystemExit) as error:
        fix = "define all that it needs in its cell, or put it into a file and import that"
        raise ArchlabError(f"layer class {config.__qualname__} of a session: {in_one_line(error)}: {fix}") from None


def _definitions(cell: str) -> str:
    """The imports, functions, classes and assignments without calls of a cell, behind what it uses of earlier imports."""
    kept = [
        node
        for node in ast.parse(cell).body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Assign | ast.AnnAssign) and not any(isinstance(part, ast.Call) for part in ast.walk(node)))
    ]
    parts = [part for node in kept for part in ast.walk(node)]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    own = {part.id for part in parts if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load)}
    own |= {part.name for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)}
    own |= {part.arg for part in parts if isinstance(part, ast.arg)}
    own |= {(part.asname or part.name).partition(".")[0] for part in parts if isinstance(part, ast.alias)}
    session = vars(sys.modules["__main__"])
    imports = [_import(name, session[name]) for name in sorted(names - own) if name in session and not hasattr(builtins, name)]
    return "\n".join([*imports, *(ast.unparse(node) for node in kept), ""])


def _import(name: str, value: Any) -> str:
    """The statement by which a session may have imported a value."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    home, there = getattr(value, "__module__", None), getattr(value, "__name__", name)
    if home == "__main__" or getattr(sys.modules.get(home or ""), there, None) is not value:
        raise ArchlabError(f"it uses {name} of another cell")
    return f"from {home} import {there} as {name}"
