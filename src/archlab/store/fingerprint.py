"""What a key says of the code and the libraries that a result was computed with."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from archlab.errors import ArchlabError


def library_versions(kernels: Literal["torch", "fla"]) -> dict[str, str]:
    """Of the libraries that compute with a recipe's kernels, up to the minor, by their module's name.

    What is not installed has none: a store of another machine's results can be read anywhere.
    """
    distributions = {"torch": "torch", "numpy": "numpy"} | ({"fla": "fla-core"} if kernels == "fla" else {})
    found = {}
    for module, distribution in distributions.items():
        with suppress(PackageNotFoundError):
            found[module] = version(distribution).split("+")[0].rsplit(".", 1)[0]
    return found


def code_fingerprint(*modules: str) -> str:
    """Hash of the code that the given modules run: their own, and that of the modules they import from archlab, from
    their own package, and from what lies beside it unless many packages are installed there.

    Formatting, comments and docstrings do not count, nor does the code of torch, whose version is in the key.

    Raises:
        ArchlabError: a given module has no file to read.
    """
    seen: set[str] = set()
    pending = [module for module in modules if module.partition(".")[0] != "torch"]
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending.extend(_digest_and_imports(module)[1])
    return hashlib.sha256("".join(_digest_and_imports(module)[0] for module in sorted(seen)).encode()).hexdigest()[:16]


@cache
def _digest_and_imports(module: str) -> tuple[str, tuple[str, ...]]:
    path = _file(module)
    if path is None:
        raise ArchlabError(f"module {module} has no file, so a change of its code would go unnoticed: move the code to a file")
    if path.suffix != ".py":  # compiled: all that can be said is whether it is the same
        return hashlib.sha256(path.read_bytes()).hexdigest(), ()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = tuple(dict.fromkeys(_imports(tree, module, is_package=path.stem == "__init__")))
    return hashlib.sha256(ast.unparse(_WithoutDocstrings().visit(tree)).encode()).hexdigest(), imports


def _file(module: str) -> Path | None:
    """The module's file, if it is a module and has one; imports nothing."""
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


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops strings that stand alone: those of modules, classes and functions, and those behind a dataclass's field."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


# What only speaks to people, or only finds the modules: no number depends on it.
_NOT_NUMERICS = {
    "archlab.errors",
    "archlab.mad.trial",
    "archlab.architectures.spec",
    "archlab.architectures.catalogue",
    "archlab.sources",
    "archlab.tasks.registry",
    "archlab.layers.external.dotted",
    "archlab.scaling.trial",
    "archlab.scaling.result",
    "archlab.corpora.preparation",
}


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """The modules of archlab, of the module's own package and from beside it that are imported anywhere in the tree."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (n for n in names if _is_followed(n, module) and n not in _NOT_NUMERICS and _file(n))


def _is_followed(name: str, module: str) -> bool:
    root, own = name.partition(".")[0], module.partition(".")[0]
    return root in ("archlab", own) or (_folder(own) is not None and _folder(root) == _folder(own))


@cache
def _folder(root: str) -> Path | None:
    """The folder that a package or a single module lies in; None for one where many packages are installed."""
    path = _file(root)
    if path is None:
        return None
    folder = path.parent.parent if path.stem == "__init__" else path.parent
    return None if folder.name in ("site-packages", "dist-packages") else folder
