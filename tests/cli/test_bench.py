"""archlab bench: what it prints, and that a dry run uses it."""

import json
from itertools import pairwise

import pytest
from tests.cli.command_line import CommandLine
from tests.fake_training import made_up_speeds

from archlab import bench


@pytest.fixture(autouse=True)
def quick_measurement(monkeypatch, tmp_path):
    monkeypatch.setattr("archlab.mad.bench.measure", made_up_speeds)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_every_protocol_has_a_row_for_each_architecture(archlab: CommandLine):
    outcome = archlab("bench", "mlp", "mh-attention swiglu")
    assert outcome.status == 0, outcome.err
    rows = [line.split() for line in outcome.out.splitlines()[1:9]]
    assert [row[0] for row in rows] == ["mad-lab", "mad-lab", "paper", "paper", "quick", "quick", "smoke", "smoke"]
    assert all("40 %" in line for line in outcome.out.splitlines()[1:9])
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_a_dry_run_stands_on_the_measurement(archlab: CommandLine):
    document = json.loads(archlab("bench", "mlp", "--json", "--workers", "2").out)
    assert document["ceilings"] == {"gemm": 1e11, "copy": 1e10}
    quick = next(row for row in document["steps"] if row["protocol"] == "quick")
    assert quick["fraction_of_gemm"] == pytest.approx(0.4)
    planned = json.loads(archlab("run", "mlp", "--seeds", "1", "--workers", "2", "--dry-run", "--json").out)
    assert planned["speeds_measured"] is not None
    assert planned["seconds"] == pytest.approx(quick["seconds"], abs=0.1)
    assert planned["peak_bytes"] > 2**28


def test_how_much_there_is_to_measure_is_said_at_once(archlab: CommandLine):
    told = archlab("bench", "mlp", "--protocol", "smoke").err.splitlines()
    assert told == ["6 kinds of training step are to be measured", "6 of 6 kinds of training step measured"]


def test_a_profile_is_a_second_table(archlab: CommandLine):
    outcome = archlab("bench", "mlp", "--protocol", "smoke", "--profile")
    assert outcome.status == 0, outcome.err
    rows = [line.split() for line in outcome.out.splitlines() if line.startswith("smoke")]
    assert [row[:2] for row in rows] == [["smoke", "mlp"]] * 2
    assert 98 <= sum(int(share) for share, sign in pairwise(rows[1]) if sign == "%") <= 102
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_an_unknown_layer_is_refused_before_anything_is_measured(archlab: CommandLine, tmp_path):
    outcome = archlab("bench", "mpl")
    assert (outcome.status, outcome.err) == (2, "error: unknown layer 'mpl': did you mean 'mlp'?\n")
    assert not (tmp_path / "cache").exists()


def test_a_measurement_is_a_frame_and_a_table_of_a_notebook():
    found = bench(["mlp"], ["smoke"], workers=1)
    (row,) = found.to_frame().to_dict("records")
    assert (row["protocol"], row["architecture"], row["fraction_of_gemm"]) == ("smoke", "mlp", pytest.approx(0.4))
    assert "mlp" in found._repr_html_()


def test_a_model_measures_nothing_and_says_so(archlab: CommandLine, tmp_path):
    outcome = archlab("bench", "mlp", "--protocol", "smoke", "--model", "h100")
    assert outcome.status == 0, outcome.err
    assert "not a measurement" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100
    document = json.loads(archlab("bench", "mlp", "--protocol", "smoke", "--model", "h100", "--json").out)
    assert (document["model"], document["steps"][0]["architecture"]) == ("h100", "mlp")
    assert not (tmp_path / "cache").exists()


def test_a_model_is_no_profile(archlab: CommandLine):
    outcome = archlab("bench", "mlp", "--model", "h100", "--profile")
    assert (outcome.status, outcome.err) == (2, "error: --model h100 measures nothing: leave --profile out\n")
