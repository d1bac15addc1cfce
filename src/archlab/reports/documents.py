"""Scores as files for other programs: JSON, CSV, Parquet, and tables for a paper."""

import json
from pathlib import Path
from typing import Literal

from archlab.errors import ArchlabError
from archlab.files import check_place, write_whole
from archlab.format import csv_text
from archlab.mad.scores import Cell, Scores, leaderboard, leaderboard_notes

Form = Literal["table", "json", "csv", "latex", "markdown", "parquet"]
_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "\\": "\\textbackslash{}",
        "–": "--",
        "±": "$\\pm$",
    }
)


def check_output(place: Path, form: Form) -> None:
    """Refuse, before anything is read, a place that the form cannot be written to, or a package that is missing."""
    if form == "table" and str(place) != "-":
        raise ArchlabError(f"--output {place}: choose what to write by --format json, csv, latex, markdown or parquet")
    if form == "parquet":
        if str(place) == "-":
            raise ArchlabError("--format parquet: is no text: give the file by --output scores.parquet")
        try:
            import pyarrow  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError:
            raise ArchlabError("--format parquet: pyarrow is not installed: pip install pyarrow, or choose csv") from None
    check_place(place, "--output")


def write_scores(scores: Scores, place: Path, form: Form) -> None:
    """Write scores in a form other than ``table``; ``-`` is standard output."""
    if form == "parquet":
        frame = scores.to_frame()
        for name in frame.columns.intersection(["by_length", "by_level"]):
            frame[name] = frame[name].map(json.dumps, na_action="ignore")  # settings have different ones
        frame.to_parquet(place, index=False)
        return
    if form == "json":
        text = json.dumps(scores.to_dict(), indent=2, allow_nan=False) + "\n"
    elif form == "csv":
        text = csv_text(scores.to_frame())
    else:
        text = latex(scores) if form == "latex" else markdown(scores)
    write_whole(place, text, "--output")


def latex(scores: Scores) -> str:
    """The leaderboard as a ``tabular`` of the package booktabs, the best of a column bold, its notes as comments."""
    heads, rows = leaderboard(scores)

    def cell(one: Cell) -> str:
        text = one.text.translate(_LATEX)
        return f"\\textbf{{{text}}}" if one.best else text

    lines = [" & ".join(map(cell, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            *(f"% {line}" for line in leaderboard_notes(scores).splitlines()),
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(head.translate(_LATEX) for head in heads) + r" \\",
            r"\midrule",
            *lines[:-1],
            r"\midrule",
            lines[-1],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def markdown(scores: Scores) -> str:
    """The leaderboard as a table in Markdown, the best of a column bold, its notes below."""
    heads, rows = leaderboard(scores)

    def cell(one: Cell) -> str:
        text = one.text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
        return f"**{text}**" if one.best else text

    lines = [f"| {' | '.join(map(cell, row))} |" for row in ([Cell(head) for head in heads], *rows)]
    rule = f"|---|{'---:|' * (len(heads) - 1)}"
    notes = [f"{cell(Cell(line.strip()))}  " for line in leaderboard_notes(scores).splitlines()]
    return "\n".join([lines[0], rule, *lines[1:], "", *notes, ""])
