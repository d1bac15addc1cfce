"""Code of a module, read without importing it."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from archlab.errors import ArchlabError
from archlab.store.syntax import CanonicalText, called, dotted

EFFECTS = "(import)"
"""Name that stands for the statements of a module which act when it is imported."""
_PURE_DECORATORS = {"cache", "contextmanager", "dataclass", "lru_cache", "no_grad", "register", "runtime_checkable"}
"""Decorators that change nothing but what they decorate; ``register`` makes a class known by a name."""
_PURE_CALLS = {"TypeVar", "bool", "dict", "exp", "float", "frozenset", "int", "log", "range", "set", "sqrt", "tuple"}
"""Functions that constants may be computed by."""
_BY_NAME = {"eval", "exec", "globals", "vars"}
"""Functions that reach definitions without naming them."""


class Source:
    """The definitions of a module of archlab."""

    def __init__(self, module: str, text: str, *, is_package: bool) -> None:
        self.module, self.package = module, module if is_package else module.rpartition(".")[0]
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, list[str]] = {}
        self.effects: list[ast.stmt] = []
        for statement in _executed(ast.parse(text).body):
            for name in _bound_by(statement):
                self.bound.setdefault(name, []).append(statement)
            if not _is_pure(statement):
                self.effects.append(statement)
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                for name, path in imports(statement, self.package):
                    self.imported.setdefault(name, []).append(path)

    def entries(self) -> list[str]:
        """The definitions that count where the module is a root: its classes, and what acts on import."""
        classes = [name for name, nodes in self.bound.items() if any(isinstance(node, ast.ClassDef) for node in nodes)]
        return [f"{self.module}:{name}" for name in (EFFECTS, *classes)]

    def everything(self) -> list[str]:
        """All definitions."""
        return [f"{self.module}:{name}" for name in (EFFECTS, *self.bound)]

    @cache  # noqa: B019 - sources are kept as long as the process lives
    def definition(self, name: str, idle_members: tuple[str, ...] = ()) -> tuple[str, list[tuple[str, str]]]:
        """The canonical text of a definition or of :data:`EFFECTS`, and the names that it uses with the dotted paths that they
        stand for. Idle members are left out of registered classes; refuses a name that is not defined."""
        nodes = self.effects if name == EFFECTS else self._statements(name)
        canonical = CanonicalText(bare=True, idle_members=idle_members)
        text = "\n".join(map(canonical.of, nodes))
        known = {name: list(paths) for name, paths in self.imported.items()}
        for node in nodes:
            for local, path in imports(node, self.package):
                known.setdefault(local, []).append(path)
        uses = []
        for used in sorted(canonical.names):
            first = used.partition(".")[0]
            paths = [*known.get(first, []), *([f"{self.module}.{first}"] if first in self.bound else [])]
            uses += [(used, path + used.removeprefix(first)) for path in paths]
            uses += [(used, self.module)] if first in _BY_NAME else []
        return text, uses

    def _statements(self, name: str) -> list[ast.stmt]:
        owner, _, method = name.partition(".")
        found = self.bound.get(owner, [])
        if method:
            body = [each for node in found if isinstance(node, ast.ClassDef) for each in node.body]
            found = [each for each in body if method in _bound_by(each)]
        if not found:
            raise ArchlabError(f"module {self.module} defines no {name}: correct the numerics that name it")
        return found


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module without those that only type checkers read."""
    for statement in body:
        if isinstance(statement, ast.If) and dotted(statement.test).rpartition(".")[2] == "TYPE_CHECKING":
            yield from statement.orelse
        else:
            yield statement


def _bound_by(statement: ast.stmt) -> set[str]:
    """The names that a statement binds in the scope around it; a function binds what it declares global too."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        declared = (node.names for node in ast.walk(statement) if isinstance(node, ast.Global))
        return {statement.name}.union(*declared)
    bound = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return bound | {node.name for node in ast.walk(statement) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _is_pure(statement: ast.stmt) -> bool:
    """Whether a statement does nothing but bind names."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return all(called(each) in _PURE_DECORATORS for each in statement.decorator_list)
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        calls = [node for node in ast.walk(statement.value or ast.Pass()) if isinstance(node, ast.Call)]
        return all(isinstance(each, ast.Name | ast.Tuple) for each in targets) and {called(call) for call in calls} <= _PURE_CALLS
    return isinstance(statement, ast.Import | ast.ImportFrom)


def imports(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """The names that imports anywhere in a tree bind, with the dotted paths that they stand for."""
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            for alias in each.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(each, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * each.level + (each.module or ""), package)
            yield from ((alias.asname or alias.name, f"{origin}.{alias.name}") for alias in each.names)


def existing_file(module: str) -> Path:
    """File of a module; refuses one without."""
    path = file_of(module)
    if path is None:
        raise ArchlabError(f"module {module} has no file, so a change of its code would go unnoticed: move the code to a file")
    return path


def file_of(module: str) -> Path | None:
    """File of a module; None if the name is not that of a module with a file. Imports nothing."""
    loaded = sys.modules.get(module)
    spec = _spec(module) if loaded is None else None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec is not None and spec.has_location else None)
    return Path(origin) if origin else None


def _spec(module: str) -> ModuleSpec | None:
    parent = module.rpartition(".")[0]
    if not parent:
        return importlib.util.find_spec(module)
    package = _spec(parent)
    locations = package.submodule_search_locations if package else None
    return None if locations is None else PathFinder.find_spec(module, locations)
