"""The live view, from made-up events."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console
from tests.synthetic_records import plan, result

from archlab.mad.runner import TrialFailed, TrialFinished, TrialProgressed, TrialReused, TrialStarted, Waiting
from archlab.mad.trial import Progress, Trial
from archlab.reports.live import LiveView, duration
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


def tell(view: LiveView, trials: Sequence[Trial]) -> None:
    view(TrialReused(trials[0], result(trials[0], [4, 4])))
    for trial in trials[1:5]:
        view(TrialStarted(trial))
    view(TrialFinished(trials[1], result(trials[1], [1, 2], curve=[(1000, 0.4)])))
    view(TrialFinished(trials[2], result(trials[2], [1, 1], curve=[(70, 0.2)], status="diverged")))
    view(TrialFailed(trials[3], "ValueError: unlucky\ntraceback"))
    view(TrialProgressed(trials[4], Progress(250, 1000, 1234.0, 0.456)))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_view_shows_it_all_within_the_terminal(trials: list[Trial], width: int):
    screen = console(width, terminal=True)
    view = LiveView(screen, trials, num_workers=2)
    tell(view, trials)
    screen.print(view.render())
    lines = [line.rstrip() for line in screen.export_text().splitlines()]
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
    assert head.split()[-6:] == ["recall", "noisy", "fuzzy", "copy", "compress", "memorize"]
    (mamba,) = [line for line in lines if line.startswith("mamba")]
    assert mamba.split() == ["mamba", "·", "·", "·", "·", "·", "100"]
    assert lines[-1].startswith("failed: mamba · compression · lr 0.001 wd 0 · seed 0: ValueError: unlucky")


def test_settings_are_told_apart_by_what_varies(trials: list[Trial]):
    screen = console(100, terminal=True)
    view = LiveView(screen, trials, num_workers=2)
    recall = [trial for trial in trials if trial.setting.name == "in-context-recall" and trial.architecture.name == "mamba"]
    for trial in recall:
        view(TrialStarted(trial))
    view(TrialStarted(trials[0]))
    screen.print(view.render())
    text = screen.export_text()
    assert "recall length=128 " in text
    assert "recall length=64 " in text
    assert "memorize " in text
    assert "vocab_size" not in text


def test_a_terminal_is_drawn_and_cleared(trials: list[Trial]):
    screen = console(80, terminal=True)
    with LiveView(screen, trials, num_workers=2) as view:
        tell(view, trials)
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "4 of 21 trials done" in drawn
    assert drawn.endswith("\x1b[2K")  # the last line that it held is erased: what follows is the leaderboard


def test_without_a_terminal_every_trial_is_a_line(trials: list[Trial]):
    screen = console(80, terminal=False)
    with LiveView(screen, trials, num_workers=2) as view:
        tell(view, trials)
        view(Waiting((trials[5],)))
    lines = screen.export_text().splitlines()
    assert lines[0] == "21 trials, 1 of them in the store already; 2 workers"
    assert lines[1].startswith("2/21  striped-mh-hyena · memorization · lr 0.001 wd 0 · seed 0: score 37.5 % after 1000 steps; ")
    assert lines[1].endswith(" left")
    assert "diverged at step 70, counts as chance" in lines[2]
    assert lines[3] == "failed: mamba · compression · lr 0.001 wd 0 · seed 0: ValueError: unlucky"
    assert lines[4:] == ["waiting for 1 trial that another run on this store computes"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.3, "under 1 s"), (42.4, "42 s"), (150, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (400_000, "5 days")],
)
def test_duration(seconds: float, text: str):
    assert duration(seconds) == text
