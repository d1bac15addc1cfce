"""The comparison of two results: directions, threshold, exit statuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = [
    {"mixer": "hyena", "ours, ms": 100, "times faster": 2.0, "rounds": 7},
    {"mixer": "mamba", "ours, ms": 50, "times faster": 1.0},
]


def result(path, rows, name="speed", processor="one"):
    path.write_text(json.dumps({"name": name, "machine": {"processor": processor}, "rows": rows}))
    return path


def compare(*paths):
    return subprocess.run(
        [sys.executable, BENCHMARKS / "compare.py", *map(str, paths)], cwd=BENCHMARKS, capture_output=True, text=True
    )


def changed(**values):
    return [{**row, **(values if row["mixer"] == "hyena" else {})} for row in ROWS]


@pytest.mark.parametrize(
    ("values", "status", "mark"),
    [
        ({"ours, ms": 119}, 0, ""),
        ({"ours, ms": 121}, 1, "WORSE"),
        ({"ours, ms": 80}, 0, "better"),
        ({"times faster": 1.6}, 1, "WORSE"),
        ({"times faster": 3.0}, 0, "better"),
        ({"rounds": 100}, 0, ""),
    ],
)
def test_what_is_worse_by_a_fifth_is_marked(tmp_path, values, status, mark):
    found = compare(result(tmp_path / "old.json", ROWS), result(tmp_path / "new.json", changed(**values)))
    assert found.returncode == status, found.stderr
    assert found.stdout.count("WORSE") == (mark == "WORSE")
    assert found.stdout.count("better") == (mark == "better")
    assert "rounds" not in found.stdout


def test_another_machine_is_said_so(tmp_path):
    found = compare(result(tmp_path / "old.json", ROWS), result(tmp_path / "new.json", ROWS, processor="two"))
    assert (found.returncode, found.stderr) == (0, "note: processor differs: one and two\n")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_text("{"), "cannot be read"),
        (lambda path: path.write_text("{}"), "is not a benchmark's result"),
        (lambda path: result(path, ROWS, name="memory"), "different benchmarks"),
        (lambda path: result(path, [{"mixer": "other", "ours, ms": 1}]), "share no row"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, write, reason):
    write(tmp_path / "new.json")
    found = compare(result(tmp_path / "old.json", ROWS), tmp_path / "new.json")
    assert found.returncode == 2
    assert found.stderr.startswith("error: ")
    assert reason in found.stderr
    assert found.stderr.count("\n") == 1


def test_results_in_the_repository_can_be_compared_with_themselves():
    for path in sorted((BENCHMARKS / "results").glob("training-speed*.json")):
        assert compare(path, path).returncode == 0
