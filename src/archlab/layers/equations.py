"""Equations of the layers, as docs/layers.md has them: the package carries that page as ``equations.md``."""

import re
from functools import cache
from importlib import resources


def equation(name: str) -> str:
    """Equations of a layer and of those that share its section, one a line; empty for a layer from elsewhere."""
    return next((lines for names, lines in _sections() if name in names), "")


@cache
def _sections() -> list[tuple[set[str], str]]:
    """Names that each section of the page is about, and its equations: the lines that are indented by four."""
    page = (resources.files(__package__) / "equations.md").read_text(encoding="utf-8")
    found = []
    for section in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]:
        lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
        introduction = section.partition("\n    ")[0]
        names = {*re.findall(r"`([\w-]+)`", introduction), *re.findall(r"^([\w-]+):", "\n".join(lines), flags=re.MULTILINE)}
        found.append((names, re.sub(" {8,}", "\n", "\n".join(lines))))
    return found
