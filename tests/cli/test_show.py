"""archlab scores, report, describe and the lists."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

from archlab.architectures import architecture
from archlab.architectures.catalogue import CATALOGUE
from archlab.layers import layer, registry
from archlab.layers.registry import composites
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol
from archlab.mad.store import TrialStore


def test_scores_are_those_of_the_run(archlab: CommandLine, smoke_run):
    store, run = smoke_run
    outcome = archlab("scores", "--store", str(store), "--json")
    assert (outcome.status, outcome.out, outcome.err) == (0, run.out, "")
    for one in json.loads(outcome.out)["architectures"]:
        assert set(one) >= {"architecture", "name", "score", "low", "high", "num_params", "state_size", "flops", "tasks"}
        assert one["low"] <= one["score"] <= one["high"]
        assert set(one["tasks"]) == {"in-context-recall", "compression"}
        assert one["score"] == pytest.approx(sum(t["score"] for t in one["tasks"].values()) / 2)
    table = archlab("scores", "--store", str(store), "--protocol", "smoke")
    assert table.status == 0
    assert max(map(len, table.out.splitlines())) <= 100


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal(archlab: CommandLine, smoke_run, monkeypatch, width: int):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # standard output counts as a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for command in (["scores", "--store", str(smoke_run[0])], ["layers"], ["architectures"], ["protocols"], ["tasks", "list"]):
        outcome = archlab(*command)
        assert outcome.status == 0
        assert "…" not in outcome.out
        assert max(len(line) for line in re.sub(r"\x1b\[\d*m", "", outcome.out).splitlines()) <= width, command


READING = """
import sys
from archlab.cli import main
sys.modules["torch"] = None  # importing it is an error
for command in ("scores", "runs", "trials", "store info", "report"):
    sys.argv = ["archlab", *command.split(), "--store", sys.argv[-1]]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


def test_reading_trials_does_not_load_torch(smoke_run, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", READING, str(smoke_run[0])], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "wrote report.html")


def test_the_report_is_written_where_asked(archlab: CommandLine, smoke_run, tmp_path: Path):
    outcome = archlab("report", "--store", str(smoke_run[0]), "-o", "mine.html")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "wrote mine.html\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]
    page = (tmp_path / "mine.html").read_text()
    assert "transformer++" in page
    assert "mamba" in page


def test_describe_counts_layer_by_layer(archlab: CommandLine):
    spec = "mh-hyena swiglu mh-attention swiglu"
    document = json.loads(archlab("describe", spec, "--length", "128", "--json").out)
    assert [layer["layer"] for layer in document["layers"]] == spec.split()
    for what in ("parameters", "matrix_state", "state", "flops", "active_flops"):
        assert document["total"][what] == sum(part[what] for part in document["layers"] + document["around"])
    assert document["total"]["parameters"] == sum(document["split"].values()) + 5 * 128
    assert 10 < document["arithmetic_intensity"] < 100
    text = archlab("describe", spec, "--length", "128").out
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][:3] == ["1", "mh-hyena", "sequence"]
    assert ["total", f"{document['total']['parameters']:,}"] in [row[:2] for row in rows]


def test_normalise_prints_a_spec_and_says_what_it_did_beside_it(archlab: CommandLine):
    outcome = archlab("normalise", "2*[mamba swiglu mh-attention]", "--state", "4096", "--params", "500000")
    assert outcome.status == 0
    assert re.fullmatch(r"2\*\[mamba swiglu\(inner=\d+\) mh-attention\]\n", outcome.out)
    first, second = outcome.err.splitlines()
    assert re.fullmatch(r".*: swiglu becomes swiglu\(inner=\d+\); matrix state 67,584, \d+,\d+ parameters in its layers", first)
    assert second.endswith("not reached: mh-attention: its state grows with the length (32,768 at 128), so it stays as it is")
    document = json.loads(archlab("normalise", "2*[mamba swiglu]", "--state", "4096", "--json").out)
    assert document == {
        "spec": "2*[mamba(d_state=8) swiglu]",
        "state": 4096,
        "params": 491_008,
        "changes": [{"before": "mamba", "after": "mamba(d_state=8)"}],
        "unreached": [],
        "dim": 128,
        "length": 128,
    }


def test_normalise_takes_the_width_and_length_of_the_protocol_that_is_run(archlab: CommandLine):
    spec = archlab("normalise", "2*[mamba swiglu]", "--state", "4096", "--protocol", "quick").out.strip()
    assert architecture(spec).matrix_state(length=64, dim=64) == 4096
    at_64 = archlab("normalise", "2*[mamba swiglu]", "--state", "4096", "--dim", "64", "--length", "64").out.strip()
    assert at_64 == spec
    document = json.loads(archlab("describe", "mh-attention", "--protocol", "quick", "--json").out)
    assert (document["layers"][0]["layer"], document["dim"], document["length"]) == ("mh-attention(heads=2)", 64, 48)
    narrower = json.loads(archlab("describe", "mh-attention", "--protocol", "quick", "--dim", "32", "--json").out)
    assert (narrower["dim"], narrower["length"]) == (32, 48)


def test_equal_parameters_can_be_asked_alone(archlab: CommandLine):
    outcome = archlab("normalise", "2*[mamba swiglu]", "--params", "500000", "--json")
    document = json.loads(outcome.out)
    assert abs(document["params"] - 500_000) < 5_000
    assert "mamba swiglu(inner=" in document["spec"]
    assert document["unreached"] == []


def test_a_layer_is_shown_with_what_it_computes_and_costs(archlab: CommandLine):
    text = archlab("layers", "mamba").out
    for part in ("sequence mixer", "arXiv 2312.00752", "d_state=4, d_conv=4", "selective scan", "at width 128 and length 128"):
        assert part in text
    document = json.loads(archlab("layers", "mh-attention", "--dim", "64", "--json").out)
    config = layer("mh-attention")
    assert (document["parameters"], document["flops"]) == (config.num_params(64, 128), config.flops(64, 128))
    assert document["attention"] is True
    assert "made of other layers" in archlab("layers", "parallel").out
    assert "does not fit this width" in archlab("layers", "mh-attention", "--dim", "30").out


def test_describe_warns_of_what_mixes_nothing_along_the_sequence(archlab: CommandLine):
    outcome = archlab("describe", "swiglu")
    assert outcome.status == 0
    assert outcome.err.startswith("warning: swiglu has no sequence mixer")
    assert archlab("describe", "mamba swiglu").err == ""


def test_lists_name_everything(archlab: CommandLine):
    layers = json.loads(archlab("layers", "--json").out)
    assert {row["layer"] for row in layers} == {*registry(), *composites()}
    text = archlab("layers").out
    assert all(name in text for name in (*registry(), *composites()))
    assert all(row["parameters"] > 0 and row["flops"] > 0 for row in layers if row["layer"] in registry())
    assert [row["name"] for row in json.loads(archlab("architectures", "--json").out)] == list(CATALOGUE)
    protocols = {row["protocol"]: row for row in json.loads(archlab("protocols", "--json").out)}
    assert (protocols["paper"]["settings"], protocols["paper"]["trials"] % (66 * 6)) == (66, 0)


def test_layers_that_do_not_fit_a_width_are_listed_all_the_same(archlab: CommandLine):
    rows = {row["layer"]: row for row in json.loads(archlab("layers", "--dim", "30", "--json").out)}
    assert rows["mh-attention"]["parameters"] is None
    assert rows["attention"]["parameters"] > 0
    assert "does not fit this width" in archlab("layers", "--dim", "30").out
    assert "does not fit this width" not in archlab("layers").out


def test_a_protocol_shown_is_a_protocol_that_runs(archlab: CommandLine, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("archlab.mad.estimate.flops_per_second", lambda trial: 1e9)
    (tmp_path / "mine.yaml").write_text(archlab("protocols", "smoke").out)
    outcome = archlab("run", "mamba", "--protocol", "mine.yaml", "--dry-run", "--json")
    assert (outcome.status, json.loads(outcome.out)["protocol"], json.loads(outcome.out)["trials"]) == (0, "mine", 6)


@pytest.mark.parametrize("command", [["architectures"], ["scores", "--json"], ["--help"]], ids=" ".join)
def test_a_reader_that_leaves_early_is_no_error(smoke_run, command: list[str]):
    script = "import sys; from archlab.cli import main; sys.stdin.read(); main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        cwd=smoke_run[0].parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.close()  # now it writes, and no one reads
    assert process.stderr.read() in ("", "reading the store ...\n")  # said after two seconds
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_normalise_says_by_its_status_that_the_parameters_are_not_reached(archlab: CommandLine):
    outcome = archlab("normalise", "mamba", "--params", "100000")
    assert (outcome.status, outcome.out) == (1, "4*mamba\n")
    assert "not reached: 100,000 parameters" in outcome.err


def test_a_layer_is_shown_with_its_equations_in_the_names_of_specs(archlab: CommandLine):
    shown = archlab("layers", "mh-attention").out
    assert "o_t = sum_{s <= t, s > t - window} softmax_s(q_t . k_s / sqrt(D/H)) v_s\n" in shown.replace(" \n", "\n")
    assert "attention with 16 heads." in shown
    assert "Config" not in shown


def test_an_architecture_of_the_catalogue_is_shown_with_its_layers(archlab: CommandLine):
    shown = archlab("architectures", "striped-mamba", "--dim", "64")
    assert (shown.status, shown.err) == (0, "")
    words = "striped-mamba = mamba swiglu mh-attention swiglu: Mamba", "arXiv 2312.00752", "d_state=4", "width 64", "total"
    for word in words:
        assert word in shown.out
    found = json.loads(archlab("architectures", "striped-mamba", "--json").out)
    assert [one["layer"] for one in found["layers"]] == ["mamba", "swiglu", "mh-attention"]
    assert found["costs"]["total"]["parameters"] > 0
    wrong = archlab("architectures", "mambaa")
    assert (wrong.status, wrong.err) == (2, "error: unknown architecture of the catalogue 'mambaa': did you mean 'mamba'?\n")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("describe mamba d_state=8", "error: d_state=8: one argument too many: quote what belongs together"),
        ("tasks recall", "error: No such command 'recall'. `archlab tasks show recall` shows the task of that name\n"),
        ("tasks draw", "error: No such command 'draw'. `archlab tasks --help` lists the commands\n"),
        ("trials list", "error: No such command 'list'. `archlab trials --help` lists the commands\n"),
        ("layers striped-hyena", "error: striped-hyena is an architecture: `archlab architectures striped-hyena` shows it\n"),
        ("architectures gqa", "error: gqa is a layer: `archlab layers gqa` shows it\n"),
        ("architectures 2*gqa", "error: 2*gqa is not in the catalogue: `archlab describe '2*gqa'` shows it\n"),
    ],
)
def test_what_the_parser_refuses_says_what_was_probably_meant(archlab: CommandLine, words: str, hint: str):
    refused = archlab(*words.split())
    assert (refused.status, refused.err.startswith(hint)) == (2, True), refused.err


def test_of_a_run_of_many_architectures_the_first_are_named(archlab: CommandLine):
    plan = make_plan(load_protocol("smoke"), [architecture(f"{n}*[mlp]") for n in range(2, 9)])
    with TrialStore("archlab.db") as store:
        store.remember_run(plan.to_dict())
    shown = archlab("runs").out
    assert "2*mlp, 3*mlp, 4*mlp, 5*mlp, 3" in " ".join(shown.split())
    assert "6*mlp" not in shown
    assert len(json.loads(archlab("runs", "--json").out)[0]["architectures"]) == 7
