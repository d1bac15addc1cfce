"""archlab run: what it prints, resumes, refuses to do twice."""

import errno
import json
import os
import signal
import socket
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
from tests import fake_fla
from tests.cli.command_line import SMOKE_RUN, CommandLine, start
from tests.fake_training import each

from archlab.architectures import architecture
from archlab.jobs.executor import EXECUTORS
from archlab.jobs.local import LocalExecutor
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol
from archlab.mad.store import TrialStore


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_):
        raise AssertionError("a training was started")

    monkeypatch.setattr(LocalExecutor, "submit", refuse)
    monkeypatch.setattr("archlab.mad.estimate.flops_per_second", lambda trial: 1e9)


def test_a_run_prints_one_document_and_its_progress_beside_it(smoke_run):
    _, outcome = smoke_run
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["complete"] is True
    assert document["tasks"] == ["in-context-recall", "compression"]
    assert sorted(a["name"] for a in document["architectures"]) == ["mamba", "transformer++"]
    lines = outcome.err.splitlines()
    assert lines[0] == "4 trials; 2 workers"
    assert [line.split()[0] for line in lines[1:5]] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("· lr 0.002 wd 0.1 · seed 0: score " in line and line.count("%") == 1 for line in lines[1:5])
    assert lines[5].startswith("4 trials computed in ")
    assert len(lines) == 6


def test_the_same_command_again_computes_nothing(archlab: CommandLine, smoke_run, no_training):
    store, first = smoke_run
    before = provenance(store)
    again = archlab(*SMOKE_RUN, "--json", "--store", str(store))
    assert (again.status, again.out) == (0, first.out)
    assert again.err == "nothing was left to compute; 4 trials taken from the store\n"
    assert provenance(store) == before


def provenance(path: Path):
    with TrialStore(path, create=False) as store:
        return [(record.key, record.provenance) for record in store.records()]


def test_a_run_ends_with_tables_and_what_to_do_next(archlab: CommandLine, smoke_run, no_training):
    outcome = archlab(*SMOKE_RUN, "--store", str(smoke_run[0]))
    assert outcome.status == 0
    head, *rows = outcome.out.splitlines()
    assert head.split()[:4] == ["architecture", "recall", "comp.", "MAD"]
    assert {row.split()[0] for row in rows[:2]} == {"transformer++", "mamba"}
    assert max(map(len, outcome.out.splitlines())) <= 100
    assert outcome.err.splitlines()[-1].startswith(f"`archlab report --store {smoke_run[0]}` ")


def test_a_dry_run_writes_nothing(archlab: CommandLine, tmp_path: Path, no_training):
    outcome = archlab(
        "run", "transformer++", "mamba swiglu", "--protocol", "smoke", "--seeds", "3", "--dry-run", "--workers", "2"
    )
    assert (outcome.status, outcome.err) == (0, "")
    text = " ".join(outcome.out.split())
    assert "protocol smoke: every task" in text
    assert "architectures 1. transformer++ = 2*[mh-attention(heads=2) swiglu] 2. mamba swiglu" in text
    assert "trials 36 = 2 architectures x 6 settings x 1 grid point x 3 seeds" in text
    assert "in the store 0 of them (archlab.db)" in text
    assert "FLOPs" in text
    assert "on this machine with 2 workers" in text
    assert list(tmp_path.iterdir()) == []


STUDY = """
protocol: smoke
seeds: 2
architectures: {wide: "2*[mamba(d_state=32) swiglu]", baseline: transformer++}
"""


def test_a_study_is_a_file_that_the_options_narrow(archlab: CommandLine, tmp_path: Path, no_training):
    (tmp_path / "study.yaml").write_text(STUDY)
    outcome = archlab("run", "study.yaml", "--dry-run")
    assert (outcome.status, outcome.err) == (0, "")
    text = " ".join(outcome.out.split())
    assert "1. wide = 2*[mamba(d_state=32) swiglu] 2. baseline = 2*[mh-attention(heads=2) swiglu]" in text
    assert "24 = 2 architectures x 6 settings x 1 grid point x 2 seeds" in text
    narrowed = json.loads(archlab("run", "study.yaml", "--tasks", "recall,copy", "--seeds", "3", "--dry-run", "--json").out)
    assert (narrowed["trials"], narrowed["settings"], narrowed["seeds"]) == (12, 2, [0, 1, 2])
    beside = archlab("run", "study.yaml", "--protocol", "quick", "--dry-run")
    assert (beside.status, beside.err) == (2, "error: protocol: the study study.yaml names its own: change it there\n")
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_forgotten_quotes_are_warned_of(archlab: CommandLine, no_training):
    outcome = archlab("run", "mamba", "swiglu", "--protocol", "smoke", "--dry-run")
    assert outcome.status == 0
    assert outcome.err.startswith("warning: swiglu has no sequence mixer")
    assert outcome.err.count("\n") == 1


def test_a_time_below_a_second_is_not_qualified(archlab: CommandLine, no_training):
    outcome = archlab("run", "mlp", "--protocol", "smoke", "--tasks", "compression", "--dry-run")
    assert "under 1 s on this machine" in outcome.out
    assert "about under" not in outcome.out


def test_a_grid_takes_long_names_too(archlab: CommandLine, no_training):
    outcome = archlab("run", "mlp", "--protocol", "smoke", "--grid", "learning_rate=1e-3,2e-3", "--dry-run", "--json")
    assert json.loads(outcome.out)["trials"] == 12


def test_a_dry_run_times_kernels_beside_operations(archlab: CommandLine, monkeypatch, no_training):
    fake_fla.install(monkeypatch)

    def seconds(trial):
        return [9.0, *[2.0 if trial.recipe.kernels == "fla" else 1.0] * 3]

    monkeypatch.setattr("archlab.mad.estimate.step_seconds", seconds)
    command = ("run", "mamba-2", "--protocol", "smoke", "--tasks", "compression", "--dry-run")
    assert json.loads(archlab(*command, "--json").out)["times_faster_by_kernels"] is None
    command = (*command, "--set", "recipe.kernels=fla")
    assert json.loads(archlab(*command, "--json").out)["times_faster_by_kernels"] == 0.5
    assert "leave recipe.kernels=fla out" in " ".join(archlab(*command).out.split())


def test_a_dry_run_knows_what_the_store_has(archlab: CommandLine, smoke_run, no_training):
    store = smoke_run[0]
    before = store.read_bytes()
    command = (*SMOKE_RUN, "--store", str(store), "--dry-run", "--json")
    all_there = json.loads(archlab(*command).out)
    assert (all_there["trials"], all_there["stored"], all_there["flops_left"], all_there["seconds"]) == (4, 4, 0, 0)
    more = json.loads(archlab(*command, "--seeds", "2", "--grid", "lr=2e-3,1e-3").out)
    assert (more["trials"], more["stored"]) == (16, 4)
    assert more["flops"] == 4 * all_there["flops"]
    assert more["flops_left"] == 3 * all_there["flops"]
    # At 1 GFLOP/s with two workers; three evaluations of 32 sequences cost half of training on 64.
    assert more["seconds"] == pytest.approx(1.5 * more["flops_left"] / 1e9 / 2, abs=0.06)
    assert store.read_bytes() == before
    assert [path.name for path in store.parent.iterdir()] == ["archlab.db"]


@pytest.mark.parametrize(
    ("options", "trials"),
    [
        (["--tasks", "compression, memorization"], 2),
        (["--settings", "base"], 6),
        (["--grid", "lr=1e-3,2e-3,1e-3", "--grid", "wd=0,0.1"], 24),
        (["--grid", "learning_rate=1e-3,2e-3", "--grid", "weight_decay=0,0.1"], 24),
        (["--seeds", "3"], 18),
        (["--seeds", "4,7,4"], 12),
        (["--seeds", "4,"], 6),
        (["--set", "length=64", "--set", "compression.length=32", "--set", "recipe.steps=2", "--set", "dim=64"], 6),
    ],
)
def test_options_narrow_a_protocol(archlab: CommandLine, no_training, options: list[str], trials: int):
    outcome = archlab("run", "mamba", "--protocol", "smoke", "--dry-run", "--json", *options)
    assert json.loads(outcome.out)["trials"] == trials


def test_a_race_leaves_out_what_cannot_change_a_score(archlab: CommandLine):
    grid = ("--grid", "lr=2e-3,8e-3", "--seeds", "2", "--set", "recipe.stop_accuracy=0.001", "--workers", "1", "--json")
    command = ("run", "mlp", "--protocol", "smoke", "--tasks", "compression", *grid)
    outcome = archlab(*command)
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["complete"] is True
    assert (document["spending"]["trials"], document["spending"]["trials_started"]) == (4, 2)
    summary, spent = outcome.err.splitlines()[-2:]
    assert "2 trials computed in " in summary
    assert "; 2 not needed: another grid point had solved the setting" in summary
    assert spent.startswith("2 of 4 trials left out, 0 dropped; ")
    previews = [json.loads(archlab(*command, "--dry-run", "--race", race).out) for race in ("exact", "off")]
    assert [(p["stored"], p["not_needed"], p["flops_left"]) for p in previews] == [(2, 2, 0), (2, 0, previews[1]["flops"] / 2)]
    exhaustive = archlab(*command, "--race", "off")
    assert json.loads(exhaustive.out)["architectures"] == document["architectures"]
    assert json.loads(exhaustive.out)["spending"]["trials_started"] == 4


def test_ctrl_c_keeps_what_is_finished(archlab: CommandLine, tmp_path: Path, no_training):
    command = ("run", "mlp", "--protocol", "smoke", "--tasks", "compression", "--seeds", "500", "--workers", "1")
    process = start(*command, folder=tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("warning: mlp has no sequence mixer")
    assert process.stderr.readline() == "500 trials; 1 worker\n"
    assert process.stderr.readline().startswith("1/500 ")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    with TrialStore(tmp_path / "archlab.db", create=False) as store:
        records = store.records()
    assert {record.status for record in records} == {"finished"}
    assert err.splitlines()[-2:] == [
        f"stopped: {len(records)} of 500 trials are done",
        "what is done is in archlab.db; the same command does the rest",
    ]
    preview = json.loads(archlab(*command, "--dry-run", "--json").out)
    assert (preview["trials"], preview["stored"]) == (500, len(records))


@pytest.mark.slow
def test_a_second_request_to_end_does_not_cut_the_first_short(tmp_path: Path):
    process = start("run", "mlp", "--protocol", "smoke", "--tasks", "compression", "--seeds", "500", folder=tmp_path)
    assert process.stderr is not None
    process.stderr.readline()
    process.terminate()
    process.stderr.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    with TrialStore(tmp_path / "archlab.db", create=False) as store:
        assert store.records(statuses=["running"]) == []


def test_failures_are_told_and_the_rest_is_scored(archlab: CommandLine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARCHLAB_STORE", "mine.db")
    monkeypatch.setattr("archlab.api.make_executor", lambda *_, **__: LocalExecutor(partial(each, fail_on_seed_1), 1))
    outcome = archlab("run", "mlp", "--protocol", "smoke", "--tasks", "compression", "--seeds", "2", "--json")
    assert outcome.status == 1
    (seeds,) = [
        setting["seeds"] for a in json.loads(outcome.out)["architectures"] for setting in a["tasks"]["compression"]["settings"]
    ]
    assert [seed["missing"] is None for seed in seeds] == [True, False]
    assert outcome.err.splitlines()[-1].endswith("seed 1: ValueError: unlucky")
    assert Path("mine.db").exists()
    (row,) = json.loads(archlab("runs", "--json").out)
    assert (row["ended"], row["failures"], row["host"]) == ("1 failed", {"ValueError: unlucky": 1}, socket.gethostname())
    assert row["torch"] == version("torch")
    with TrialStore("mine.db") as store:  # as runs of earlier versions, of which less is known
        store.remember_run(make_plan(load_protocol("smoke"), [architecture("mlp")]).to_dict())
    (_, earlier) = json.loads(archlab("runs", "--json").out)
    assert (earlier["ended"], earlier["host"]) == (None, None)
    shown = archlab("runs")
    assert "nan" not in shown.out
    assert "1 failed" in shown.out
    assert shown.err.splitlines()[-2:] == [
        "run 1: 1 failed: ValueError: unlucky",
        "run 1: `archlab trials rerun --run 1 --status failed` tries them again",
    ]


def fail_on_seed_1(trial, on_progress, thresholds):
    from tests.synthetic_records import result

    if trial.seed == 1:
        raise ValueError("unlucky")
    return result(trial, [1, 2], curve=[(4, 0.2), (8, 0.4)])


@pytest.mark.slow
def test_seeds_are_trained_together_where_asked(archlab: CommandLine, monkeypatch: pytest.MonkeyPatch):
    groups, submit = [], LocalExecutor.submit

    def counted(self, trials, *how):
        groups.append(len(trials))
        return submit(self, trials, *how)

    monkeypatch.setattr(LocalExecutor, "submit", counted)
    smoke = ("run", "mlp", "--protocol", "smoke", "--tasks", "compression", "--seeds", "2", "--workers", "1")
    apart, together = archlab(*smoke, "--json"), archlab(*smoke, "--population", "2", "--store", "together.db", "--json")
    assert apart.status == together.status == 0
    scores = [json.loads(outcome.out)["architectures"][0]["score"] for outcome in (apart, together)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert groups == [1, 1, 2]
    plan = json.loads(archlab(*smoke, "--population", "4", "--dry-run", "--json").out)
    assert plan["population"] == 4


@pytest.mark.parametrize("population", ["0", "many", "-1", "1.5"])
def test_a_population_is_a_number_or_auto(archlab: CommandLine, population: str):
    outcome = archlab("run", "mlp", "--protocol", "smoke", f"--population={population}")
    assert outcome.status == 2
    assert f"--population {population}: give auto, or a whole number" in outcome.err
    assert not Path("archlab.db").exists()


def test_a_run_at_equal_state_says_what_it_changed_and_trains_that(archlab: CommandLine, no_training):
    outcome = archlab("run", "mamba", "2*[retnet swiglu]", "--protocol", "smoke", "--iso-state", "512", "--dry-run", "--json")
    assert outcome.status == 0
    dim = json.loads(archlab("protocols", "smoke", "--json").out)["dim"]
    specs = json.loads(outcome.out)["architectures"]
    assert [architecture(spec).matrix_state(length=64, dim=dim) for spec in specs] == [512, 512]
    assert [line.split(": ")[0] for line in outcome.err.splitlines()] == ["mamba", "2*[retnet swiglu]"]


def test_weights_are_kept_of_what_is_computed(archlab: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(EXECUTORS, "local", "tests.jobs.thread_executor:ThreadExecutor")
    asked = ("run", "mlp", "--protocol", "smoke", "--tasks", "recall", "--store", "a.db", "--keep", "weights")
    assert archlab(*asked).status == 0
    (kept,) = Path("a.db.models").iterdir()
    again = archlab(*asked)
    assert "not of those taken from the store: `archlab trials rerun KEY --keep weights --store a.db`" in again.err
    kept.rename("moved")
    assert archlab("trials", "rerun", kept.name, "--keep", "weights", "--store", "a.db", "--yes").status == 0
    assert kept.is_dir()
    assert archlab("export", "mlp@recall", "out", "--to", "state-dict", "--store", "a.db").status == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["model.safetensors", "trial.json"]
    refused = archlab(*asked, "--executor", "workers")
    reason = "keep='weights' (--keep): workers elsewhere keep no weights of trials: choose executor local or ray"
    assert (refused.status, refused.err.splitlines()[-1]) == (2, f"error: {reason}")


def test_weights_that_cannot_be_kept_are_named(archlab: CommandLine, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(EXECUTORS, "local", "tests.jobs.thread_executor:ThreadExecutor")
    monkeypatch.setattr("archlab.store.kept.save_file", full)
    outcome = archlab("run", "mlp", "--protocol", "smoke", "--tasks", "recall", "--keep", "weights")
    assert outcome.status == 0
    assert "warning: the weights of mlp on in-context-recall" in outcome.err
    assert "were not kept: OSError: [Errno 28] No space left on device" in outcome.err
    assert not Path("archlab.db.models").exists()
