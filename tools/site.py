"""Gathers the sources of the documentation site: its pages, the files that they link to, and a reference from docstrings.

    python tools/site.py FOLDER

``pages`` in the folder mirrors the repository, so that links mean there what they mean here. The navigation is that of
docs/index.md: its headings, and below each the pages that it links to.
"""

import importlib
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
ROLE = re.compile(r":(?:meth|class|func|mod|attr|data|obj):`~?([^`]+)`")
MODULES = (
    "archlab",
    "archlab.layers",
    "archlab.tasks",
    "archlab.scaling",
    "archlab.scaling.fits",
    "archlab.figures",
    "archlab.testing",
)


def linked(page: Path) -> list[Path]:
    """The files of the repository that a page links to."""
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    return [(page.parent / target).resolve() for target in targets]


def gather(folder: Path) -> None:
    """Copy the pages and, from page to page, what they link to; a folder becomes a list of its files."""
    left = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    seen: set[Path] = set()
    while left:
        path = left.pop()
        if path in seen or not path.is_relative_to(ROOT):
            continue
        seen.add(path)
        place = folder / path.relative_to(ROOT)
        if path.is_dir():
            files = sorted(one for one in path.iterdir() if one.is_file())
            place.mkdir(parents=True, exist_ok=True)
            lines = "\n".join(f"- [{one.name}]({one.name})" for one in files)
            (place / "index.md").write_text(f"# {path.name}\n\n{lines}\n", encoding="utf-8")
            left += files
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
            left += linked(path) if path.suffix == ".md" else []


def reference(home: str) -> str:
    """The page of a module: what the docstrings of its public names say, for mkdocstrings to fill in."""
    module = importlib.import_module(home)
    parts = [f"# {home}\n\n{module.__doc__}\n"]
    for name in module.__all__:
        value = getattr(module, name)
        if not isinstance(value, ModuleType):
            defined = getattr(value, "__module__", "").startswith("archlab")  # unlike constants and aliases of types
            place = f"{value.__module__}.{value.__qualname__}" if defined else f"{home}.{name}"
            parts.append(f"::: {place}\n    options:\n      heading: {home}.{name}\n      toc_label: {name}\n")
    return "\n".join(parts)


def navigation(index: str) -> str:
    """The navigation as TOML, from the headings and links of docs/index.md, with the reference at its end."""
    sections = {"Reference": {module: f"docs/reference/{module}.md" for module in MODULES}}
    for heading, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", index, re.MULTILINE | re.DOTALL):
        pages = {
            title[:1].upper() + title[1:].replace("`", ""): (ROOT / "docs" / target).resolve().relative_to(ROOT).as_posix()
            for title, target in re.findall(r"\[(.*?)\]\((.*?)\)", body)
        }
        sections[heading] = {title: page for title, page in pages.items() if page != "README.md"}
    sections["Reference"] = sections.pop("Reference")
    entries = ['{"archlab" = "README.md"}', '{"All pages" = "docs/index.md"}']
    for heading, pages in sections.items():
        entries.append(f'{{"{heading}" = [' + ", ".join(f'{{"{title}" = "{page}"}}' for title, page in pages.items()) + "]}")
    return f"nav = [{', '.join(entries)}]\n"


def main(folder: Path) -> None:
    """Write the folder anew: pages, configuration, and the source whose docstrings are read, without roles."""
    shutil.rmtree(folder, ignore_errors=True)
    gather(folder / "pages")
    shutil.copy(ROOT / "tools" / "site.css", folder / "pages")
    (folder / "pages" / "docs" / "reference").mkdir()
    for module in MODULES:
        (folder / "pages" / "docs" / "reference" / f"{module}.md").write_text(reference(module), encoding="utf-8")
    for path in (ROOT / "src").rglob("*.py"):
        place = folder / "src" / path.relative_to(ROOT / "src")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(ROLE.sub(r"`\1`", path.read_text(encoding="utf-8")), encoding="utf-8")
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    settings = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    (folder / "zensical.toml").write_text(settings.replace("[project]\n", f"[project]\n{navigation(index)}", 1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
