"""The benchmark of the layers, run at a tiny size: its columns fit together, and its floors are what a page of paper says."""

import importlib
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_same_tree_takes_as_long_and_columns_fit(tmp_path):
    tree = BENCHMARKS.parent
    finished = run("--layers", "canon", "mh-linear-attention(heads=4)", "--against", tree, "--json", tmp_path / "speed.json")
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["layer"] for row in rows] == ["canon", "mh-linear-attention(heads=4)"]
    for row in rows:
        assert row["ms"] / row["before, ms"] == pytest.approx(row["time over before"], rel=0.1)


@pytest.mark.slow
def test_a_profile_accounts_for_all_time():
    finished = run("--layers", "mamba", "--profile")
    assert finished.returncode == 0, finished.stderr
    header, _, row = (line for line in finished.stdout.splitlines() if line.startswith("|"))
    columns = dict(zip((c.strip() for c in header.split("|")), (c.strip() for c in row.split("|")), strict=True))
    assert sum(float(columns[kind]) for kind in columns if kind not in ("", "layer", "length", "ms")) == pytest.approx(100, abs=1)
    assert float(columns["products"]) > 0 < float(columns["elementwise"])


@pytest.fixture
def layer_speed(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("layer_speed")


def test_all_sequence_mixers_are_measured_by_default(layer_speed):
    names = {config.name for config in layer_speed.parse_layers(None)}
    assert {"mamba", "mh-attention", "canon"} < names
    assert "swiglu" not in names


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--layers", "linear-atention"], "unknown layer"),
        (["--layers", "swiglu"], "is a channel mixer"),
        (["--layers", "mh-attention(heads=3)"], "the nearest that fits"),
        (["--layers", "mamba", "--lengths", "0"], "must be at least 1"),
        (["--layers", "mamba-2", "--kernels", "fla"], "they need a GPU"),
        (["--layers", "mamba-2", "--against", "elsewhere"], "holds no src/archlab"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, monkeypatch, capsys, layer_speed, arguments, reason):
    monkeypatch.setattr(sys, "argv", ["layer_speed.py", *arguments, "--json", str(tmp_path / "speed.json")])
    with pytest.raises(SystemExit) as refusal:
        layer_speed.main()
    assert refusal.value.code == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
