"""Planted faults are found, and true tables raise no alarm."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from archlab.designs.check_table import check_table
from archlab.designs.published import load_published
from archlab.errors import ArchlabError

SOURCES = ["mesanet", "lin-attn-bench"]
ALIKE = [{"in-context-recall", "noisy-in-context-recall"}, {"in-context-recall", "selective-copying"},
         {"noisy-in-context-recall", "selective-copying"}]  # fmt: skip
"""Tasks whose scores are near 100 in all published tables: nothing tells that they were exchanged."""


class Scores:
    """A published table that can be spoilt and written."""

    def __init__(self, source: str) -> None:
        percent = load_published(source).scores.percent
        self.names = list(percent)
        self.tasks = [task for task in next(iter(percent.values())) if task != "mean"]
        self.cells = np.array([[row[task] for task in self.tasks] for row in percent.values()])
        self.means = np.array([row["mean"] for row in percent.values()])

    def write(self, path: Path) -> Path:
        rows = zip(self.names, self.cells, self.means, strict=True)
        lines = [",".join(["architecture", *self.tasks, "mean"])]
        lines += [",".join([name, *(f"{cell:.1f}" for cell in cells), f"{mean:.1f}"]) for name, cells, mean in rows]
        path.write_text("\n".join(lines))
        return path


@pytest.fixture(params=SOURCES)
def table(request: pytest.FixtureRequest) -> Scores:
    return Scores(request.param)


def test_published_tables_raise_no_alarm(table: Scores, tmp_path: Path):
    assert check_table(table.write(tmp_path / "a.csv")) == []


def test_exchanged_columns_are_found(table: Scores, tmp_path: Path):
    for i, j in combinations(range(len(table.tasks)), 2):
        one, other = table.tasks[i], table.tasks[j]
        if {one, other} not in ALIKE:
            table.cells[:, [i, j]] = table.cells[:, [j, i]]
            found = check_table(table.write(tmp_path / "a.csv"))
            table.cells[:, [i, j]] = table.cells[:, [j, i]]
            assert [finding.kind for finding in found] == ["exchanged"], (one, other)
            assert {one, other} == {*found[0].text.split(" look exchanged")[0].split(" and ")}


def test_a_column_that_counts_twice_in_the_means_is_found(table: Scores, tmp_path: Path):
    table.means = (table.cells.sum(axis=1) + table.cells[:, 0]) / (len(table.tasks) + 1)
    found = check_table(table.write(tmp_path / "a.csv"))
    assert {finding.kind for finding in found} == {"mean"}
    assert f"in which {table.tasks[0]} counts twice" in found[0].text


def test_a_mean_that_leaves_a_column_out_is_found(table: Scores, tmp_path: Path):
    table.means = table.cells[:, 1:].mean(axis=1)
    assert f"without {table.tasks[0]}" in check_table(table.write(tmp_path / "a.csv"))[0].text


def test_one_wrong_mean_and_exchanged_means_are_found(table: Scores, tmp_path: Path):
    table.means[2] += 0.4
    (finding,) = check_table(table.write(tmp_path / "a.csv"))
    assert finding.rows == (table.names[2],)
    table.means[2] -= 0.4
    table.means[[0, 1]] = table.means[[1, 0]]
    texts = " ".join(finding.text for finding in check_table(table.write(tmp_path / "a.csv")))
    assert f"it is the mean of {table.names[0]}" in texts
    assert f"it is the mean of {table.names[1]}" in texts


def test_cells_that_cannot_be_are_found(table: Scores, tmp_path: Path):
    column = table.tasks.index("in-context-recall")
    table.cells[1, column], table.cells[2, column] = 3.0, 104.0
    table.means = table.cells.mean(axis=1)
    found = {finding.kind: finding for finding in check_table(table.write(tmp_path / "a.csv"))}
    assert found["below chance"].rows == (table.names[1],)
    assert found["out of range"].rows == (table.names[2],)


def test_what_is_there_twice_is_found(table: Scores, tmp_path: Path):
    table.cells[1], table.means[1] = table.cells[0], table.means[0]
    assert [finding.kind for finding in check_table(table.write(tmp_path / "a.csv"))] == ["repeated"]
    fresh = Scores("lin-attn-bench")
    fresh.cells[:, 1] = fresh.cells[:, 0]
    fresh.means = fresh.cells.mean(axis=1)
    assert "was listed twice" in check_table(fresh.write(tmp_path / "a.csv"))[0].text


def test_fractions_and_markdown_are_read(tmp_path: Path):
    path = tmp_path / "a.md"
    path.write_text("| model | Compress | Fuzzy | Recall | Avg |\n|---|---|---|---|---|\n| **a** | 0.40 | 0.30 | 0.99 | 0.50 |\n")
    (finding,) = check_table(path)
    assert "a 50 (columns give 56.33)" in finding.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("a,b,c\nx,1,2", "names no two MAD tasks"),
        ("a,recall,copy", "no rows below its head"),
        ("a,recall,copy\nx,1", "row 'x' has 2 cells, the head has 3"),
        ("a,recall,copy\nx,1,hi", "x, copy: 'hi' is no number"),
        ("a,recall,in-context recall\nx,1,2", "two columns are in-context-recall"),
        ("a,recall,copy\nx,1,2\nx,3,4", "'x' has two rows"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, reason: str):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ArchlabError, match=reason):
        check_table(path)


@pytest.mark.parametrize("head", ["Average MAD", "Mean (%)", "MAD Score", "Avg. over all tasks", "average accuracy"])
def test_the_mean_is_known_by_the_words_of_its_head(head: str, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text(f"model,recall,fuzzy,{head}\nx,99.0,30.0,64.5\ny,98.0,31.0,70.5\n")
    assert [finding.kind for finding in check_table(path)] == ["mean"]
    path.write_text("model,recall,fuzzy,average ppl\nx,99.0,30.0,14.5\ny,98.0,31.0,13.5\n")
    assert check_table(path) == []
    path.write_text(f"model,recall,fuzzy,mean,{head}\nx,99.0,30.0,64.5,64.5\n")
    with pytest.raises(ArchlabError, match="two columns are means"):
        check_table(path)


def test_means_as_fractions_and_means_without_a_column_are_explained(table: Scores, tmp_path: Path):
    right = table.cells.mean(axis=1)
    table.means = right / 100
    (found,) = check_table(table.write(tmp_path / "a.csv"))
    assert found.text.endswith("they are fractions beside percentages: multiply them by 100")
    table.means = right - table.cells[:, 0] / len(table.tasks)
    (found,) = check_table(table.write(tmp_path / "a.csv"))
    assert f"columns, without {table.tasks[0]}, divided by {len(table.tasks)}" in found.text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cells", ["x,99.0,\ny,98.0,\n", "x,,\ny,,\n"])
def test_empty_columns_are_told_and_compared_with_nothing(cells: str, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text(f"model,recall,fuzzy\n{cells}")
    assert {finding.kind for finding in check_table(path)} <= {"missing", "repeated"}
    path.write_text("model,recall,fuzzy\nx,inf,30\n")
    with pytest.raises(ArchlabError, match="'inf' is no number"):
        check_table(path)
