"""Refuses docstrings and help texts that open with "Of", "What" or "See": they begin with a verb or a noun phrase.

Prints ``file:line: opening`` for each, and ends with status 1 if there are any.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "archlab"
REFUSED = ("Of", "What", "See")


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring (of modules, classes and functions, and below attributes), and of help texts."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="help", value=ast.Constant(value=str(text), lineno=line)):
                yield line, text
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text)), lineno=line):
                    yield line, text


def refused(source: str) -> list[tuple[int, str]]:
    """Line and first line of the docstrings that open with a refused word."""
    found = sorted(docstrings(ast.parse(source)))
    return [(line, text.strip().partition("\n")[0]) for line, text in found if (text.split() or [""])[0] in REFUSED]


def main() -> int:
    """Check the package; the exit status."""
    lines = [
        f"{path.relative_to(PACKAGE.parents[1])}:{line}: {opening}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, opening in refused(path.read_text())
    ]
    print(*lines, f"{len(lines)} docstrings open with {', '.join(REFUSED)}" if lines else "docstrings open plainly", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
