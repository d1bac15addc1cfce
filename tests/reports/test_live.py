"""The live view, from made-up events."""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import TextIO

import pytest
from rich.console import Console
from tests.scaling import synthetic_ladders
from tests.synthetic_records import plan, result

from archlab.format import duration
from archlab.jobs.events import (
    Event,
    Job,
    JobFailed,
    JobFinished,
    JobProgressed,
    JobReused,
    JobStarted,
    Listener,
    RunEnded,
    RunStarted,
    RunSummary,
    Waiting,
)
from archlab.mad.trial import Progress, Trial
from archlab.reports.live import LiveView
from archlab.scaling.result import LMProgress
from archlab.tasks import setting

SPECS = ["mamba", "striped-mh-hyena", "3*[mh-hyena swiglu] mh-attention swiglu mh-gated-linear-attention(heads=4) swiglu"]


@pytest.fixture
def trials() -> list[Trial]:
    names = [
        "memorization",
        "compression",
        "selective-copying",
        *(f"{kind}in-context-recall" for kind in ("", "noisy-", "fuzzy-")),
    ]
    settings = [setting(name) for name in names]
    return plan(SPECS, [*settings, setting("in-context-recall", length=64)], seeds=[0])


def console(width: int, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, record=True, color_system=None)


def drawn(view: LiveView) -> list[str]:
    screen = console(view.console.width, terminal=True)
    screen.print(view.render())
    return [line.rstrip() for line in screen.export_text().splitlines()]


def tell(view: Listener, trials: Sequence[Trial]) -> None:
    view(RunStarted(tuple(trials), 2))
    view(JobReused(trials[0], result(trials[0], [4, 4])))
    for trial in trials[1:5]:
        view(JobStarted(trial))
    view(JobFinished(trials[1], result(trials[1], [1, 2], curve=[(1000, 0.4)])))
    view(JobFinished(trials[2], result(trials[2], [1, 1], curve=[(70, 0.2)], status="diverged")))
    view(JobFailed(trials[3], "ValueError: unlucky\ntraceback"))
    view(JobProgressed(trials[4], Progress(250, 1000, 1234.0, 0.456)))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_view_shows_it_all_within_the_terminal(trials: list[Trial], width: int):
    view = LiveView(console(width, terminal=False))
    tell(view, trials)
    lines = drawn(view)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for part in (
        "4 of 21 trials done",
        "1 running",
        "16 to come",
        "1 from the store",
        "1 diverged",
        "1 failed",
        "1.23k examples/s",
    ):
        assert part in text
    running = next(line for line in lines if "step 250/1000" in line)
    assert running.startswith("striped-mh-h")
    assert "seed 0" in running
    assert running.endswith("45.6 %")
    head = next(line for line in lines if line.startswith("best test score so far, %"))
    last = ["comp.", "memo."] if width == 80 else ["compression", "memorization"]
    assert head.split()[-6:] == ["recall", "noisy", "fuzzy", "copy", *last]
    (mamba,) = [line for line in lines if line.startswith("mamba")]
    assert mamba.split() == ["mamba", "·", "·", "·", "·", "·", "100"]
    assert lines[-1].startswith("failed: mamba · compression · lr 0.001 wd 0 · seed 0: ValueError: unlucky")


def test_a_narrow_view_leaves_out_grid_points_before_names_and_scores(trials: list[Trial]):
    view = LiveView(console(40, terminal=False))
    tell(view, trials)
    lines = drawn(view)
    assert max(map(len, lines)) <= 40
    running = next(line for line in lines if "step 250/1000" in line).split()
    assert (running[0][:6], running[-2:]) == ("stripe", ["45.6", "%"])
    assert "seed" not in running
    assert any(line.split()[-6:] == ["reca", "nois", "fuzz", "copy", "comp", "memo"] for line in lines)
    assert ["mamba", "·", "·", "·", "·", "·", "100"] in [line.split() for line in lines]


def test_settings_are_told_apart_by_what_varies(trials: list[Trial]):
    view = LiveView(console(100, terminal=False))
    view(RunStarted(tuple(trials), 2))
    recall = [trial for trial in trials if trial.setting.name == "in-context-recall" and trial.architecture.name == "mamba"]
    for trial in recall:
        view(JobStarted(trial))
    view(JobStarted(trials[0]))
    text = "\n".join(drawn(view))
    assert "recall length=128 " in text
    assert "recall length=64 " in text
    assert "memorization " in text
    assert "vocab_size" not in text


def test_a_terminal_is_drawn_and_cleared(trials: list[Trial]):
    screen = console(80, terminal=True)
    view = LiveView(screen)
    tell(view, trials)
    view(RunEnded(RunSummary(total=21, reused=1, computed=2)))
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "4 of 21 trials done" in written
    assert written.endswith("\x1b[2K")  # the last line that it held is erased: the leaderboard follows


def test_without_a_terminal_every_trial_is_a_line(trials: list[Trial]):
    screen = console(80, terminal=False)
    view = LiveView(screen)
    tell(view, trials)
    view(Waiting((trials[5],)))
    view(RunEnded(RunSummary(total=21, reused=1, computed=3), interrupted=True))
    lines = screen.export_text().splitlines()
    assert lines[0] == "21 trials, 1 of them in the store already; 2 workers"
    assert lines[1].startswith("2/21  striped-mh-hyena · memorization · lr 0.001 wd 0 · seed 0: score 37.5 % after 1000 steps; ")
    assert lines[1].endswith(" left")
    assert "diverged at step 70, counts as chance" in lines[2]
    assert lines[3] == "failed: mamba · compression · lr 0.001 wd 0 · seed 0: ValueError: unlucky"
    assert lines[4:] == ["waiting for 1 trial that another run on this store computes", "stopped: 4 of 21 trials are done"]


def test_a_wide_terminal_cuts_no_name(trials: list[Trial]):
    view = LiveView(console(170, terminal=False))
    view(RunStarted(tuple(trials), 2))
    view(JobStarted(trials[2]))
    assert any(line.startswith(trials[2].architecture.label) and line.endswith("starting") for line in drawn(view))


def test_an_interrupted_run_says_so_on_a_terminal(trials: list[Trial]):
    screen = console(80, terminal=True)
    view = LiveView(screen)
    view(RunStarted(tuple(trials), 2))
    view(RunEnded(RunSummary(total=21), interrupted=True))
    assert screen.file.getvalue().endswith("stopped: 0 of 21 trials are done\n")  # type: ignore[attr-defined]


def test_language_models_are_shown_by_the_same_view():
    models = [synthetic_ladders.trial(label, 1e17, 4e6, 1e9) for label in ("transformer++", "mamba")]
    screen = console(100, terminal=False)
    view = LiveView(screen)
    view(RunStarted(tuple(models), 1))
    for model in models:
        view(JobStarted(model))
    view(JobProgressed(models[0], LMProgress(250, 0, num_steps=1000, tokens_per_second=2e4, loss=4.5678)))
    lines = drawn(view)
    assert any(line.startswith("0 of 2 training runs done · 2 running · 0 to come · 20k tokens/s · ") for line in lines)
    (row,) = [line for line in lines if "step 250/1000" in line]
    assert row.startswith("transformer++  width 2000  1e+17 FLOPs seed 0 ")
    assert row.endswith("step 250/1000  loss 4.568 20k tokens/s")
    assert "best test score" not in "".join(lines)
    view(JobFinished(models[0], synthetic_ladders.result(3.25)))
    view(JobFinished(models[1], synthetic_ladders.result(None)))
    assert screen.export_text().splitlines() == [
        "2 training runs; 1 worker",
        "1/2  transformer++, width 2000, 1e+17 FLOPs, seed 0: loss 3.2500 (10k tokens/s, 40 % of GEMM); 2 min left",
        "2/2  mamba, width 2000, 1e+17 FLOPs, seed 0: diverged: the loss is not a number at step 7 (10k tokens/s, 40 % of GEMM)",
    ]


@dataclass(frozen=True)
class JsonLines:
    """A logger is a listener: every event that changes a job, as a line of JSON."""

    file: TextIO

    def __call__(self, event: Event) -> None:
        match event:
            case JobFinished(job, result) | JobReused(job, result):
                self.write(event, job, result=result.status)
            case JobFailed(job):
                self.write(event, job, error=event.reason)
            case JobStarted(job) | JobProgressed(job):
                self.write(event, job)

    def write(self, event: Event, job: Job, **values: str) -> None:
        print(json.dumps({"event": type(event).__name__, "key": job.key, **values}), file=self.file)


def test_a_logger_is_one_listener(trials: list[Trial]):
    file = io.StringIO()
    tell(JsonLines(file), trials)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    names = [line["event"] for line in lines]
    assert names == ["JobReused", *["JobStarted"] * 4, "JobFinished", "JobFinished", "JobFailed", "JobProgressed"]
    assert lines[-2] == {"event": "JobFailed", "key": trials[3].key, "error": "ValueError: unlucky"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.3, "under 1 s"), (42.4, "42 s"), (150, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (400_000, "5 days")],
)
def test_duration(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_notebook_shows_the_view_in_one_place_and_draws_it_again(trials, monkeypatch):
    drawn: list[str] = []

    class Display(ModuleType):
        @staticmethod
        def HTML(text):  # noqa: N802 - the name of the package
            return text

        @staticmethod
        def display(text, *, display_id):
            assert display_id
            return SimpleNamespace(update=drawn.append)

    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", Display("IPython.display"))
    monkeypatch.setattr("archlab.reports.live._NOTEBOOK_SECONDS", 0.0)
    written = io.StringIO()
    view = LiveView(Console(file=written, force_jupyter=True))
    first = trials[0]
    outcome = result(first, [1, 2, 1])
    for event in (
        RunStarted(tuple(trials), 2),
        JobStarted(first),
        JobFinished(first, outcome),
        RunEnded(RunSummary(total=len(trials), computed=1)),
    ):
        view(event)
    assert written.getvalue() == ""
    assert len(drawn) == 4
    assert drawn[0].startswith("<pre style=")
    assert "1 running" in drawn[1]
    assert f"1 of {len(trials)} trials done" in drawn[-1]
    assert "best test score so far" in drawn[-1]


def test_what_a_run_belongs_to_stands_above_it(trials: list[Trial]):
    view = LiveView(console(80, terminal=True))
    view.above = "4 of 24 architectures"
    view(RunStarted(tuple(trials), 2))
    assert drawn(view)[:2] == ["4 of 24 architectures", ""]
    view(RunEnded(RunSummary(total=len(trials)), interrupted=True))
