"""Loggers write down what happens, and never stop a run."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli.command_line import CommandLine
from tests.fake_training import threads
from tests.mad.trials import train
from tests.scaling import synthetic_ladders
from tests.synthetic_records import plan, result

import archlab as al
from archlab.jobs.events import (
    Event,
    JobFailed,
    JobFinished,
    JobProgressed,
    JobReused,
    JobsSkipped,
    JobStarted,
    ResultsDamaged,
    RunEnded,
    RunStarted,
    RunSummary,
    Waiting,
)
from archlab.mad.trial import Progress
from archlab.reports.loggers import Guarded
from archlab.scaling.result import LMProgress
from archlab.tasks import setting

MODEL = synthetic_ladders.ladder("wide", synthetic_ladders.SMALL, budgets=(1e17,), sizes=1)[0][0]
TRAINED = synthetic_ladders.result(3.0)


@pytest.fixture(name="events")
def fixture_events() -> list[Event]:
    """A run of everything that can happen, to trials and to a language model."""
    first, second, third = plan(["mamba", "mlp"], [setting("compression", length=48)], seeds=[0, 1])[:3]
    ours = result(first, [1, 2, 1], curve=[(500, 0.25), (1000, 0.5)])
    return [
        RunStarted((first, second, third, MODEL), 2),
        JobReused(second, ours),
        ResultsDamaged({third.key: "it is damaged"}),
        JobStarted(first),
        JobProgressed(first, Progress(500, 1000, math.inf, 0.25)),
        JobFinished(first, ours),
        JobStarted(MODEL),
        JobProgressed(MODEL, LMProgress(7, 0, 1000, 5e3, 4.5)),
        JobFinished(MODEL, TRAINED),
        JobStarted(third),
        JobFailed(third, "unlucky\nTraceback"),
        JobsSkipped((third,)),
        Waiting((third,)),
        RunEnded(RunSummary(total=4, computed=2, failed={third.key: "unlucky"})),
    ]


def test_lines_of_json_say_what_happened(events: list[Event], tmp_path: Path):
    path = tmp_path / "events.jsonl"
    for where in (str(path), f"jsonl:{path}"):  # the second run adds its lines
        log = al.logger(where)
        for event in events:
            log(event)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2 * len(events)
    assert {line["version"] for line in lines} == {1}
    assert [line["event"] for line in lines[:6]] == [
        "run_started", "job_reused", "results_damaged", "job_started", "job_progressed", "job_finished"
    ]  # fmt: skip
    finished, model = lines[5], lines[8]
    assert {"architecture": "mamba", "task": "compression", "seed": 0}.items() <= finished["job"].items()
    assert finished["job"]["setting"]["length"] == 48
    assert finished["job"]["key"] == events[3].job.key
    assert finished["result"]["score"] == events[5].result.score
    assert [(at["step"], at["accuracy"]) for at in finished["curve"]] == [(500, 0.25), (1000, 0.5)]
    assert lines[4]["progress"] == {"step": 500, "num_steps": 1000, "examples_per_second": "Infinity", "accuracy": 0.25}
    assert {"architecture": "wide", "budget": 1e17}.items() <= model["job"].items()
    assert model["result"]["loss"] == 3.0
    assert [at["train_loss"] for at in model["curve"]] == [5.0, 4.0]
    assert lines[7]["progress"]["loss"] == 4.5
    assert (lines[13]["computed"], list(lines[13]["failed"].values()), lines[13]["interrupted"]) == (2, ["unlucky"], False)


def test_a_failing_logger_says_so_once_and_stops_nothing(events: list[Event], capsys: pytest.CaptureFixture[str]):
    heard = []

    def broken(event: Event) -> None:
        heard.append(event)
        print("what belongs to nobody")
        raise OSError("no space left")

    log = Guarded("broken:x", broken)
    for event in events:
        log(event)
    said = capsys.readouterr()
    assert heard == events[:1]
    assert (
        said.err
        == "what belongs to nobody\nlog broken:x: OSError: no space left: nothing more is logged there, the run goes on\n"
    )
    assert said.out == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_run_goes_on_when_the_disk_of_its_log_is_full(archlab: CommandLine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("archlab.api.make_executor", lambda *_, **__: threads(train, num_workers=1))
    smoke = ("run", "mlp swiglu", "--protocol", "smoke", "--tasks", "compression", "--json")
    done = archlab(*smoke, "--log", "jsonl:/dev/full", "--log", "whole.jsonl")
    assert done.status == 0, done.err
    assert done.err.count("No space left on device") == 1
    assert json.loads(done.out)
    lines = [json.loads(line)["event"] for line in Path("whole.jsonl").read_text().splitlines()]
    assert (lines[0], lines[-1], lines.count("job_finished")) == ("run_started", "run_ended", 1)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("events.txt", "log events.txt: give a file that ends in .jsonl, or one of jsonl:PATH, tensorboard:FOLDER, trackio:"),
        ("comet:x", "log comet:x: give a file that ends in .jsonl"),
        ("wandb:", "log wandb:: give"),
        ("nowhere/events.jsonl", "log nowhere/events.jsonl: there is no directory nowhere: create it first"),
        ("wandb:mine", "log wandb:mine: .*: pip install wandb, or pip install 'archlab\\[track\\]'"),
    ],
)
def test_what_cannot_be_logged_to_is_refused_before_anything_is_computed(
    where: str, reason: str, archlab: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(al.ArchlabError, match=reason):
        al.logger(where)
    refused = archlab("run", "mlp swiglu", "--protocol", "smoke", "--log", where)
    assert (refused.status, Path("archlab.db").exists()) == (2, False)


class Recorder:
    """Stands in for wandb and mlflow: notes every call, and is every object that they return."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.info = SimpleNamespace(run_id="r", experiment_id="e")
        self.summary = self

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            self.calls.append((name, (*given, named)))
            return None if name == "get_experiment_by_name" else self

        return call

    def of(self, name: str) -> list[Any]:
        return [given for called, given in self.calls if called == name]


def test_weights_and_biases_gets_a_run_for_every_job(events: list[Event], monkeypatch: pytest.MonkeyPatch):
    wandb = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = al.logger("wandb:mine")
    for event in events:
        log(event)
    names = [given[-1]["name"] for given in wandb.of("init")]
    assert names[0].startswith("mamba, compression, seed 0, ")
    assert names[1].startswith("wide, ")
    assert wandb.of("init")[0][-1]["config"]["setting"]["length"] == 48
    assert [given[0]["step"] for given in wandb.of("log")] == [500, 500, 1000, 7, 500, 1000]
    assert wandb.of("update")[0][0]["score"] == events[5].result.score
    assert wandb.of("update")[2][0] == {"status": "failed"}
    assert len(wandb.of("finish")) == 3


def test_mlflow_gets_a_run_for_every_job(events: list[Event], monkeypatch: pytest.MonkeyPatch):
    mlflow = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    log = al.logger("mlflow:mine")
    for event in [*events[:7], RunEnded(RunSummary(total=4), interrupted=True)]:
        log(event)
    assert mlflow.of("create_experiment") == [("mine", {})]
    assert ("r", "accuracy", 0.5, {"step": 1000}) in mlflow.of("log_metric")
    assert ("r", "result/score", events[5].result.score, {"step": 1000}) in mlflow.of("log_metric")
    assert [given[1] for given in mlflow.of("set_terminated")] == ["FINISHED", "FINISHED"]
    assert mlflow.of("set_tag")[-1] == ("r", "status", "interrupted", {})


def test_a_store_that_mlflow_refuses_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise RuntimeError("this store is in maintenance mode")

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=refuse))
    with pytest.raises(al.ArchlabError, match="log mlflow:mine: RuntimeError: this store is in maintenance mode"):
        al.logger("mlflow:mine")


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs mlflow: pip install 'archlab[track]'")
def test_mlflow_keeps_what_was_logged(events: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    log = al.logger("mlflow:mine")
    for event in events:
        log(event)
    client = importlib.import_module("mlflow").MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    (run,) = [one for one in runs if one.data.params.get("task") == "compression" and "accuracy" in one.data.metrics]
    assert (run.info.status, run.data.params["architecture"]) == ("FINISHED", "mamba")
    assert run.data.metrics["result/score"] == events[5].result.score
    assert [point.step for point in client.get_metric_history(run.info.run_id, "accuracy")] == [500, 1000]
    assert {one.info.status for one in runs} == {"FINISHED", "FAILED"}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard: pip install 'archlab[track]'")
def test_tensorboard_reads_what_was_logged(events: list[Event], tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = al.logger(f"tensorboard:{tmp_path}")
    for event in events:
        log(event)
    found = {}
    for folder in sorted(tmp_path.iterdir()):
        run = EventAccumulator(str(folder)).Reload()
        found["-".join(folder.name.split("-")[:4])] = {
            tag: [(at.step, at.value) for at in run.Scalars(tag)] for tag in run.Tags()["scalars"]
        }
    assert found["mamba,-compression,-seed-0,"]["accuracy"] == [(500, 0.25), (1000, 0.5)]
    assert found["mamba,-compression,-seed-0,"]["result/score"] == [(1000, pytest.approx(events[5].result.score))]
    assert next(run for name, run in found.items() if name.startswith("wide"))["train_loss"] == [
        (7, 4.5),
        (500, 5.0),
        (1000, 4.0),
    ]


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="needs trackio: pip install 'archlab[track]'")
def test_trackio_keeps_what_was_logged(events: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    import sqlite3

    import trackio.utils

    for module in [each for name, each in sys.modules.items() if name.startswith("trackio") and hasattr(each, "TRACKIO_DIR")]:
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path)
    assert tmp_path == trackio.utils.TRACKIO_DIR
    log = al.logger("trackio:mine")
    for event in events:
        log(event)
    said = capsys.readouterr()
    assert "nothing more is logged" not in said.err
    assert said.out == ""
    with sqlite3.connect(tmp_path / "mine.db") as database:
        rows = list(database.execute("select run_name, step, metrics from metrics order by id"))
    ours = [(step, json.loads(metrics)) for name, step, metrics in rows if name.startswith("mamba, compression, seed 0")]
    assert [at["accuracy"] for step, at in ours if "accuracy" in at] == [0.25, 0.5]
    assert ours[-1][1]["result/score"] == pytest.approx(events[5].result.score)
