"""Canonical text of Python code: equal for equal code, under every version of Python.

``ast.dump`` and ``ast.unparse`` differ from version to version; this walk over the tree leaves out what is empty or carries
no meaning, and sorts the fields of a node by name.
"""

import ast
from copy import copy
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

_MEANINGLESS = frozenset({"ctx", "kind", "simple", "type_comment", "type_ignores"})
_TYPES = frozenset({"annotation", "returns", "type_params"})
_WITHOUT_EFFECT = frozenset({"checked", "override"})
"""Decorators that change no number."""


@dataclass
class CanonicalText:
    """Writes trees down, and collects the names that they use."""

    bare: bool
    """Leave out what no number depends on, as type annotations, messages of exceptions and ``@override``; docstrings always."""
    idle_members: tuple[str, ...] = ()
    """Names of members that are left out of registered classes."""
    names: set[str] = field(default_factory=set)
    """Names used so far, each with the attributes that follow it: ``F.pad``, ``chunk_size``."""

    def of(self, node: Any) -> str:
        """Text of a node, a list of nodes or a constant."""
        if isinstance(node, list):
            return f"[{','.join(self.of(item) for item in node if not self._is_left_out(item))}]"
        if isinstance(node, ast.JoinedStr):
            node = _joined(node)
        elif self.bare:
            node = self._simplified(node)
        if not isinstance(node, ast.AST):
            return f"{type(node).__name__}:{node!a}"
        if name := dotted(node):
            self.names.add(name)
            return f"<{name}>"
        ignored = _MEANINGLESS | _TYPES if self.bare else _MEANINGLESS
        values = [(name, getattr(node, name, None)) for name in sorted(node._fields) if name not in ignored]
        return (
            f"{type(node).__name__}({','.join(f'{name}={self.of(value)}' for name, value in values if value not in (None, []))})"
        )

    def _is_left_out(self, node: Any) -> bool:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return True  # a docstring: of a module, class or function, or behind a dataclass's field
        return self.bare and (isinstance(node, ast.Pass) or (type(node) is ast.AnnAssign and node.value is None))

    def _simplified(self, node: Any) -> Any:
        """The node without type annotations and messages."""
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = dotted(raised) if raised is not None else ""
            return ast.Raise(exc=ast.Constant(value=name)) if name else node
        if isinstance(node, ast.Assert):
            return ast.Assert(test=node.test)
        if type(node) is ast.AnnAssign and node.value is not None:
            return ast.Assign(targets=[node.target], value=node.value)
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            node = copy(node)
            node.decorator_list = [each for each in node.decorator_list if dotted(each) not in _WITHOUT_EFFECT]
        if isinstance(node, ast.ClassDef):
            idle = self.idle_members if any(called(each) == "register" for each in node.decorator_list) else ()
            members = [each for each in node.body if _member(each) not in idle]
            node.body = [_Field(**vars(each)) if isinstance(each, ast.AnnAssign) else each for each in members]
        return node


class _Field(ast.AnnAssign):
    """An annotated name in a class: a field of a dataclass, not a mere assignment."""


def _member(node: ast.stmt) -> str:
    """The name of a function or a value in a class; empty for anything else."""
    if isinstance(node, ast.FunctionDef):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return dotted(targets[0]) if len(targets) == 1 else ""


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name with attributes; empty for other expressions."""
    if isinstance(node, ast.Name):
        return node.id
    owner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{owner}.{node.attr}" if isinstance(node, ast.Attribute) and owner else ""


def called(node: ast.expr) -> str:
    """The last part of the name of a function that is called or decorates."""
    return dotted(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def _joined(node: ast.JoinedStr) -> ast.JoinedStr | None:
    """An f-string with neighbouring pieces of text joined, which some versions of Python leave apart or empty."""
    values: list[ast.expr] = []
    for is_text, group in groupby(node.values, key=lambda value: isinstance(value, ast.Constant)):
        pieces = list(group)
        if is_text:
            text = "".join(str(piece.value) for piece in pieces if isinstance(piece, ast.Constant))
            pieces = [ast.Constant(value=text)] if text else []
        values += pieces
    return ast.JoinedStr(values=values)
