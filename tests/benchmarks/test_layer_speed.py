"""The benchmark of the layers, run at a tiny size: its columns fit together, and its floors are what a page of paper says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LENGTH = 4


def run(*arguments):
    command = [sys.executable, BENCHMARKS / "layer_speed.py", "--lengths", str(LENGTH), "--rounds", "1", *map(str, arguments)]
    return subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True)


def test_columns_and_floors(tmp_path):
    finished = run("--layers", "linear-attention(heads=4, feature_map=relu)", "--json", tmp_path / "speed.json")
    assert finished.returncode == 0, finished.stderr
    document = json.loads((tmp_path / "speed.json").read_text())
    (row,), settings = document["rows"], document["settings"]
    assert (row["length"], row["tokens looped"]) == (str(LENGTH), LENGTH)
    assert row["loop, ms"] / row["ms"] == pytest.approx(row["times faster"], rel=0.05)
    assert row["times mh-attention"] > 0
    projections, pairs = 4 * 128 * 128, 16 * 4 * (32 + 32)
    flops = 3 * 32 * 2 * (LENGTH * projections + pairs)
    assert row["GEMM floor, ms"] == pytest.approx(1e-6 * flops / settings["GEMM peak, GFLOP/s"], abs=0.006, rel=0.01)
    moved = 4 * (4 * 32 * LENGTH * 128 + 2 * projections)
    assert row["memory floor, ms"] == pytest.approx(1e-6 * moved / settings["copy bandwidth, GB/s"], abs=0.006, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--layers", "linear-atention"], "unknown layer"),
        (["--layers", "swiglu"], "is a channel mixer"),
        (["--layers", "mh-attention(heads=3)"], "the nearest that fits"),
        (["--layers", "mamba", "--lengths", "0"], "must be at least 1"),
        (["--layers", "mamba-2", "--kernels", "fla"], "they need a GPU"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, arguments, reason):
    finished = run(*arguments, "--json", tmp_path / "speed.json")
    assert finished.returncode == 2
    assert reason in finished.stderr
    assert not list(tmp_path.iterdir())
