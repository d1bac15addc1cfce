"""Writes the figures of a benchmark as JSON and as a dated Markdown page, with the machine that measured them."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Row = Mapping[str, str | int | float]


def machine() -> dict[str, Any]:
    """Where the figures come from: date, commit, processor, cores, Python and PyTorch."""
    import torch

    root = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../src"], cwd=root, capture_output=True)
    return {
        "date": date.today().isoformat(),
        "commit": (commit.stdout.strip() or "unknown") + (" with uncommitted changes" if changed.returncode == 1 else ""),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, columns aligned to read well in a terminal too."""
    header = list(rows[0])
    cells = [header, *([_text(row[column]) for column in header] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    numeric = [not isinstance(rows[0][column], str) for column in header]
    lines = [
        "| " + " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def write(
    name: str, title: str, command: str, settings: Mapping[str, Any], rows: Sequence[Row], path: Path | None = None
) -> Path:
    """Write ``<name>-<date>.json`` and ``.md`` into ``benchmarks/results``, or to ``path`` and its ``.md`` sibling.

    Args:
        name: of the files.
        title: heading of the page.
        command: what a person types to measure again.
        settings: what was measured, one line each.
        rows: the figures; the columns are the keys of the first row.

    Returns:
        The path of the JSON file.
    """
    facts = machine()
    path = path or RESULTS / f"{name}-{facts['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "name": name,
        "command": command,
        "machine": facts,
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    page = [f"# {title}", "", f"    {command}", "", table(rows), ""]
    page += [f"- {key}: {value}" for key, value in {**settings, **facts}.items()]
    path.with_suffix(".md").write_text("\n".join(page) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, value in facts.items()}
    return f"{names.get('model name', platform.machine())} (family {names.get('cpu family')}, model {names.get('model')})"


def _text(value: str | int | float) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
