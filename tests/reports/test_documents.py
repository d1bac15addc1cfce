"""Scores as files: what spreadsheets, papers and other programs read is what the leaderboard shows."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.cli.command_line import CommandLine
from tests.synthetic_records import plan, score, simulate

from archlab import ArchlabError, figures
from archlab.format import csv_text
from archlab.mad.scores import Scores, leaderboard
from archlab.reports.documents import check_output, latex, markdown, write_scores
from archlab.tasks import setting


@pytest.fixture(name="scores", scope="module")
def fixture_scores() -> Scores:
    trials = plan(
        ["mlp swiglu", "2*[mamba(d_state=8) swiglu]"], [setting("in-context-recall"), setting("compression")], seeds=[0, 1]
    )
    return score(trials, simulate(trials, lambda trial: 0.9 if str(trial.architecture) == "mlp swiglu" else 0.4))


def test_a_table_in_latex_is_the_leaderboard(scores: Scores):
    heads, rows = leaderboard(scores)
    text = latex(scores)
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r" \\")]
    assert lines[0].split(" & ") == [head.replace("%", r"\%") for head in heads]
    assert len(lines) == 1 + len(rows)
    assert r"2*[mamba(d\_state=8) swiglu]" in text
    best = next(cell.text for row in rows for cell in row[1:] if cell.best)
    assert rf"\textbf{{{best}}}" in text
    assert all(
        line.startswith("%")
        for line in text.splitlines()[: text.splitlines().index(rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}")]
    )


def test_a_table_in_markdown_is_the_leaderboard(scores: Scores):
    heads, rows = leaderboard(scores)
    lines = markdown(scores).splitlines()
    assert lines[0] == f"| {' | '.join(heads)} |"
    assert lines[1].count("|") == len(heads) + 1
    assert [line.count(" | ") for line in lines[2 : 2 + len(rows)]] == [len(heads) - 1] * len(rows)
    assert "| 2\\*[mamba(d\\_state=8) swiglu] |" in "\n".join(lines)
    assert f"**{next(cell.text for cell in rows[0][1:] if cell.best)}**" in lines[2]


def test_texts_that_a_spreadsheet_would_compute_are_quoted():
    frame = pd.DataFrame({"=head": ["=1+1", "+1", "-x", "@a", "mamba", "a=b"], "n": [-1.5, 2.0, 0.0, 1.0, 1.0, None]})
    read = pd.read_csv(io.StringIO(csv_text(frame)))
    assert read["'=head"].tolist() == ["'=1+1", "'+1", "'-x", "'@a", "mamba", "a=b"]
    assert read["n"].tolist()[:2] == [-1.5, 2.0]  # numbers are numbers


@pytest.mark.parametrize(
    ("place", "form", "reason"),
    [
        ("scores.txt", "table", "--output scores.txt: choose what to write by --format"),
        ("-", "parquet", "--format parquet: is no text: give the file"),
        ("nowhere/a.csv", "csv", "--output nowhere/a.csv: there is no directory nowhere"),
    ],
)
def test_places_that_do_not_fit_are_refused(place: str, form: Any, reason: str):
    with pytest.raises(ArchlabError, match=reason):
        check_output(Path(place), form)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet_reads_back(scores: Scores, tmp_path: Path):
    write_scores(scores, tmp_path / "a.parquet", "parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), scores.to_frame())


def test_figures_are_written_for_papers(tmp_path: Path):
    trials = plan(["mlp swiglu", "mamba swiglu"], [setting("compression")], seeds=[0, 1])
    scores = score(trials, simulate(trials, lambda trial: 0.9 if str(trial.architecture) == "mlp swiglu" else 0.4))
    written = figures.save(scores, tmp_path / "figures")
    assert {path.stem for path in written} == {"leaderboard", "differences", "cost", "learning-compression"}
    assert {path.suffix for path in written} == {".svg", ".pdf"}
    assert all(path.read_bytes().startswith(b"%PDF" if path.suffix == ".pdf" else b"<svg") for path in written)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchlabError, match="file: cannot be written: File exists"):
        figures.save(scores, tmp_path / "file")


@pytest.mark.slow
def test_the_command_writes_what_the_store_holds(smoke_run: Any, archlab: CommandLine, monkeypatch: pytest.MonkeyPatch):
    smoke = ("--store", str(smoke_run[0]))
    table = archlab("scores", *smoke)
    document = json.loads(archlab("scores", *smoke, "--json").out)
    assert document == json.loads(archlab("scores", *smoke, "--format", "json").out)
    assert {"archlab", "date", "protocol", "differences"} <= document.keys()
    assert document["date"] > "2026"
    frame = pd.read_csv(io.StringIO(archlab("scores", *smoke, "--format", "csv").out))
    assert set(frame.architecture) == {"transformer++", "mamba"}
    done = archlab("scores", *smoke, "--format", "latex", "-o", "table.tex")
    assert (done.status, done.out, done.err) == (0, "", "wrote table.tex\n")
    assert r"\begin{tabular}" in Path("table.tex").read_text()
    assert "transformer++" in table.out
    monkeypatch.setattr("archlab.figures.save", lambda scores, folder: [Path(folder) / "cost.pdf"])
    drawn = archlab("report", *smoke, "--figures", "pictures")
    assert (drawn.status, drawn.err) == (0, "wrote report.html\nwrote cost.pdf into pictures\n")
