"""How far a run is and how long it still takes, computed by hand."""

import pytest
from tests.synthetic_records import plan, result

from archlab.mad.recipe import Recipe
from archlab.mad.runner import (
    RunInterrupted,
    RunSummary,
    TrialFailed,
    TrialFinished,
    TrialProgressed,
    TrialReused,
    TrialsSkipped,
    TrialStarted,
)
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.reports.progress import RunProgress
from archlab.tasks import setting

RECIPE = Recipe(steps=100, batch_size=10, evaluations=2)
TASKS = [setting("compression"), setting("memorization")]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def result_after(trial: Trial, seconds: float, right: int = 2) -> TrialResult:
    return TrialResult(**vars(result(trial, [right, right])) | {"wall_seconds": seconds})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def compression() -> list[Trial]:
    return plan(["mlp"], TASKS[:1], seeds=range(5), recipe=RECIPE)


def test_nothing_is_foreseen_before_the_first_report(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 2, clock)
    assert progress.seconds_left() is None
    progress.update(TrialStarted(compression[0]))
    assert progress.seconds_left() is None


def test_the_start_of_a_worker_does_not_count(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 1, clock)
    progress.update(TrialStarted(compression[0]))
    clock.now += 60  # the worker starts
    progress.update(TrialProgressed(compression[0], Progress(20, 100, 50.0, None)))
    # 10 sequences a step at 50 a second are 0.2 s a step: 80 steps left here, 4 trials of 100 steps to come
    assert progress.seconds_left() == pytest.approx(80 * 0.2 + 4 * 100 * 0.2)
    clock.now += 9
    progress.update(TrialProgressed(compression[0], Progress(50, 100, 50.0, None)))
    # with its evaluation, 30 steps took 9 s: 0.3 s a step
    assert progress.seconds_left() == pytest.approx(50 * 0.3 + 4 * 100 * 0.3)
    clock.now += 5
    assert progress.seconds_left() == pytest.approx(50 * 0.3 - 5 + 4 * 100 * 0.3)


def test_finished_trials_tell_how_long_their_like_take(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 2, clock)
    for trial, seconds in zip(compression[:2], (10.0, 30.0), strict=True):
        progress.update(TrialStarted(trial))
        progress.update(TrialFinished(trial, result_after(trial, seconds)))
    assert progress.seconds_left() == pytest.approx(3 * 20 / 2)
    progress.update(TrialStarted(compression[2]))
    clock.now += 5
    assert progress.seconds_left() == pytest.approx((15 + 2 * 20) / 2)


def test_a_trial_may_stop_as_early_as_those_before_it(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression[:2], 1, clock)
    progress.update(TrialStarted(compression[0]))
    progress.update(TrialFinished(compression[0], result_after(compression[0], 4.0)))
    progress.update(TrialStarted(compression[1]))
    clock.now += 1
    progress.update(TrialProgressed(compression[1], Progress(10, 100, 100.0, None)))
    assert progress.seconds_left() == pytest.approx(4 - 1)
    clock.now += 4
    progress.update(TrialProgressed(compression[1], Progress(50, 100, 100.0, None)))
    assert progress.seconds_left() == pytest.approx(50 * 4 / 40)  # it has not stopped early: its own pace counts


def test_the_last_trial_is_not_shared_among_workers(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression[:2], 2, clock)
    for trial, step in zip(compression, (10, 90), strict=False):
        progress.update(TrialStarted(trial))
        progress.update(TrialProgressed(trial, Progress(step, 100, 10.0, None)))
    assert progress.seconds_left() == pytest.approx(90)


def test_other_tasks_are_foreseen_by_their_flops(clock: Clock):
    trials = plan(["mlp"], TASKS, seeds=[0], recipe=RECIPE)
    progress = RunProgress(trials, 1, clock)
    progress.update(TrialStarted(trials[0]))
    progress.update(TrialFinished(trials[0], result_after(trials[0], 10.0)))
    assert progress.seconds_left() == pytest.approx(10 * trials[1].flops / trials[0].flops)
    progress.update(TrialReused(trials[1], result_after(trials[1], 99.0)))
    assert progress.seconds_left() == 0


def test_counts_and_best_scores(clock: Clock, compression: list[Trial]):
    progress = RunProgress([*compression, compression[0]], 2, clock)
    assert (progress.total, progress.done) == (5, 0)
    progress.update(TrialReused(compression[0], result_after(compression[0], 1.0, right=1)))
    for trial, right in zip(compression[1:3], (3, 2), strict=True):
        progress.update(TrialStarted(trial))
        progress.update(TrialFinished(trial, result_after(trial, 1.0, right)))
    progress.update(TrialStarted(compression[3]))
    progress.update(TrialProgressed(compression[3], Progress(1, 100, 123.0, None)))
    assert progress.examples_per_second == 123
    progress.update(TrialFailed(compression[3], "ValueError: unlucky"))
    assert (progress.reused, progress.computed, progress.failed, progress.done) == (1, 2, 1, 4)
    assert (len(progress.running), len(progress.waiting)) == (0, 1)
    assert progress.best == {(compression[0].architecture.label, "compression"): 0.75}
    progress.update(RunInterrupted(RunSummary(total=5, reused=1, computed=3)))
    assert progress.computed == 3


def test_trials_that_are_not_needed_are_not_waited_for(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 1, clock)
    progress.update(TrialStarted(compression[0]))
    progress.update(TrialFinished(compression[0], result_after(compression[0], 10.0)))
    progress.update(TrialsSkipped(tuple(compression[1:4])))
    assert (progress.done, progress.skipped, len(progress.waiting)) == (4, 3, 1)
    assert progress.seconds_left() == pytest.approx(10)
    progress.update(TrialStarted(compression[4]))
    progress.update(TrialsSkipped((compression[4],)))  # it ran, and was stopped
    assert (progress.done, progress.running, progress.seconds_left()) == (5, {}, 0.0)
