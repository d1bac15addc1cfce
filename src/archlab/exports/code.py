"""The part of archlab's source, and of layers from outside, that a model needs, as files that import each other only."""

import ast
import re
import symtable
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from archlab.errors import ArchlabError
from archlab.store.fingerprint import folder_of, source_of, split_path
from archlab.store.source import Source, existing_file, imports

_STAND_INS = {
    "archlab.layers.registry": "registry.py",
    "archlab.layers.external.dotted": "dotted.py",
}
"""Modules that find layers by name; here the names are known, and a few lines take their place."""
_IDLE = {"archlab.fields"}
"""Modules whose effects on import no model needs: this one teaches YAML to read numbers."""
_OPERATORS = re.compile(r'"archlab::(\w+)"')
_BY_NAME = {"eval", "exec", "globals"}
"""Functions that reach definitions without naming them."""


def file_name(module: str) -> str:
    """Name of the exported file that stands for a module: all lie in one folder, as Hugging Face's loader wants them."""
    return module.replace(".", "_")


class Bundle:
    """Definitions that a model stands on, cut out of their modules with all that they reach by name.

    Definitions are left as they are written; only imports of included modules become relative. Modules of the standard library
    and of installed packages are imported as before, but for packages that register a layer.
    """

    def __init__(self, *registering: str) -> None:
        """The modules that register the model's layers are included wherever they are."""
        self._registering = {module.partition(".")[0] for module in registering}
        self._kept: dict[str, list[ast.stmt]] = {}

    def add(self, module: str, name: str) -> None:
        """Include a definition and all that it reaches; refuses what cannot be followed, such as a module without source."""
        if module in _STAND_INS:
            self._kept.setdefault(module, [])
            return
        source = _read(module)
        for statement in source.bound.get(name, []):
            self._keep(source, statement)
        if name not in source.bound and name not in source.imported:
            raise ArchlabError(f"{module}.{name} is not defined by a statement, so its code cannot be included: define it there")
        for path in source.imported.get(name, []) if name not in source.bound else []:
            if self.includes(path):
                self._add(module, path)

    def files(self) -> dict[str, str]:
        """The texts of the modules, by the names of their files."""
        self._settle()
        return {f"{file_name(module)}.py": self._text(module) for module in sorted(self._kept)}

    def includes(self, path: str) -> bool:
        """Whether the code of a module is included, or is to come from an installed package."""
        root = path.partition(".")[0]
        if root == "archlab" or root in self._registering:
            return True
        return root not in sys.stdlib_module_names and folder_of(root) is not None

    def _add(self, module: str, path: str) -> None:
        home, name = split_path(path)
        if not name:
            fix = f"import the names that it uses, as in `from {path} import NAME`"
            raise ArchlabError(f"{module} imports {path} as a whole, of which no part can be included: {fix}")
        self.add(home, name)

    def _keep(self, source: Source, statement: ast.stmt) -> None:
        statements = self._kept.setdefault(source.module, [])
        if any(statement is one for one in statements):
            return
        if "*" in source.imported:
            whole = source.imported["*"][0].removesuffix(".*")
            raise ArchlabError(f"{source.module} imports all of {whole}: import the names that it uses")
        statements.append(statement)
        used = _free_names(source.module, statement)
        for name in [*source.bound] if used & _BY_NAME else sorted(used):
            if name in source.bound or any(map(self.includes, source.imported.get(name, []))):
                self.add(source.module, name)
        for _, path in imports(statement, source.package):
            if self.includes(path):
                self._add(source.module, path)

    def _settle(self) -> None:
        """Include what modules do on import, such as to register an operator."""
        before = None
        while before != (before := sum(map(len, self._kept.values()))):
            for module in [one for one in self._kept if one not in (*_STAND_INS, *_IDLE)]:
                source = _read(module)
                for effect in source.effects:
                    if not (isinstance(effect, ast.If) and "__name__" in ast.unparse(effect.test)):  # what a script does
                        self._keep(source, effect)

    def _text(self, module: str) -> str:
        path = existing_file(module)
        if module in _STAND_INS:
            return (Path(__file__).parent / "stand_ins" / _STAND_INS[module]).read_text(encoding="utf-8")
        text = path.read_text(encoding="utf-8")
        source, lines = _read(module), text.splitlines()
        kept = sorted(self._kept[module], key=lambda one: one.lineno)
        used = set().union(*(_free_names(module, one) for one in kept))
        body = "\n\n\n".join(self._segment(source, one, lines) for one in kept)
        tree = ast.parse(text)
        plain: list[str] = []
        names: dict[str, list[str]] = {}
        for node in tree.body:
            if isinstance(node, ast.Import):
                ones = [one for one in node.names if (one.asname or one.name.partition(".")[0]) in used]
                plain += [f"import {ast.unparse(one)}" for one in ones]
            elif isinstance(node, ast.ImportFrom):
                future = node.module == "__future__"
                for home, name in self._named(source, node, None if future else used):
                    names.setdefault(home, []).append(name)
        heads = [*plain, *(f"from {home} import {', '.join(names[home])}" for home in sorted(names, key=_rank))]
        described = f'"""{ast.get_docstring(tree, clean=False)}"""\n' if ast.get_docstring(tree) else ""
        owner = f"archlab {version('archlab')} (Apache-2.0)" if module.startswith("archlab.") else "outside archlab"
        if _OPERATORS.search(body):  # a process may load several models, and knows an operator by its name once
            body = _OPERATORS.sub(r'f"{_NAMESPACE}::\1"', body).replace("torch.ops.archlab", "getattr(torch.ops, _NAMESPACE)")
            heads.append('_NAMESPACE = __name__.replace(".", "_")')
        return "\n".join([f"# Taken from the module {module}, of {owner}.", described, *heads, "", "", body, ""])

    def _named(self, source: Source, node: ast.ImportFrom, used: set[str] | None = None) -> Iterator[tuple[str, str]]:
        """The module and the name of all that a statement imports and that is used, as the included modules import it."""
        for alias in node.names:
            if used is None or (alias.asname or alias.name) in used:
                ((_, path),) = imports(ast.ImportFrom(node.module, [alias], node.level), source.package)
                home, name = path.rpartition(".")[0], alias.name
                if self.includes(path):
                    module, name = self._home(path)
                    home = f".{file_name(module)}"
                yield home, f"{name} as {alias.asname}" if alias.asname else name

    def _home(self, path: str) -> tuple[str, str]:
        """Where the definition stands that a path leads to, through the packages that pass it on."""
        module, name = split_path(path)
        if module in _STAND_INS:
            return module, name
        source = _read(module)
        passed = source.imported.get(name, []) if name not in source.bound else []
        return self._home(passed[0]) if passed and self.includes(passed[0]) else (module, name)

    def _segment(self, source: Source, statement: ast.stmt, lines: list[str]) -> str:
        """The statement as it is written, behind its comments, with the imports within it made relative."""
        first, last = _extent(statement, lines)
        segment = lines[first:last]
        inner = [x for x in ast.walk(statement) if isinstance(x, ast.ImportFrom) and any(map(self.includes, _paths(x, source)))]
        for node in sorted(inner, key=lambda one: one.lineno, reverse=True):
            relative = [" " * node.col_offset + f"from {home} import {name}" for home, name in self._named(source, node)]
            segment[node.lineno - 1 - first : (node.end_lineno or node.lineno) - first] = relative
        return "\n".join(segment)


def _read(module: str) -> Source:
    path = existing_file(module)
    if path.suffix != ".py":
        raise ArchlabError(f"module {module} has no source, only {path.name}: a model that stands on it cannot be exported")
    return source_of(module)


def _rank(home: str) -> tuple[bool, bool, str]:
    """Sorts imports as is usual: ``__future__`` first, the modules beside last."""
    return home != "__future__", home.startswith("."), home


def _paths(node: ast.stmt, source: Source) -> list[str]:
    return [path for _, path in imports(node, source.package)]


def _extent(statement: ast.stmt, lines: list[str]) -> tuple[int, int]:
    """The first line, and the one behind the last, with decorators, the comments before and the string that describes it."""
    decorators = statement.decorator_list if isinstance(statement, ast.FunctionDef | ast.ClassDef) else []
    first = min([statement.lineno, *(node.lineno for node in decorators)]) - 1
    while first > 0 and lines[first - 1].startswith("#"):
        first -= 1
    last = statement.end_lineno or statement.lineno
    if last < len(lines) and lines[last].startswith('"""'):
        last = next(at for at in range(last, len(lines)) if lines[at].endswith('"""') and (at > last or lines[at] != '"""')) + 1
    return first, last


@cache
def _free_names(module: str, statement: ast.stmt) -> set[str]:
    """The names that a statement of a module takes from the module, or from outside."""

    def of(table: symtable.SymbolTable, *, top: bool) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() if top else symbol.is_global():
                yield symbol.get_name()
        for child in table.get_children():
            yield from of(child, top=False)

    text = ast.unparse(statement)
    return {*of(symtable.symtable(text, module, "exec"), top=True)}
