"""How far a run is and how long it still takes, computed by hand."""

from dataclasses import replace

import pytest
from tests.scaling import synthetic_ladders
from tests.synthetic_records import plan, result

from archlab.jobs.events import (
    JobFailed,
    JobFinished,
    JobProgressed,
    JobReused,
    JobsSkipped,
    JobStarted,
    RunEnded,
    RunSummary,
)
from archlab.mad.recipe import Recipe
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.reports.progress import RunProgress
from archlab.scaling.result import LMProgress
from archlab.scaling.trial import LMTrial
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
    progress.update(JobStarted(compression[0]))
    assert progress.seconds_left() is None


def test_the_start_of_a_worker_does_not_count(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 1, clock)
    progress.update(JobStarted(compression[0]))
    clock.now += 60  # the worker starts
    progress.update(JobProgressed(compression[0], Progress(20, 100, 50.0, None)))
    # 10 sequences a step at 50 a second are 0.2 s a step: 80 steps left here, 4 trials of 100 steps to come
    assert progress.seconds_left() == pytest.approx(80 * 0.2 + 4 * 100 * 0.2)
    clock.now += 9
    progress.update(JobProgressed(compression[0], Progress(50, 100, 50.0, None)))
    # with its evaluation, 30 steps took 9 s: 0.3 s a step
    assert progress.seconds_left() == pytest.approx(50 * 0.3 + 4 * 100 * 0.3)
    clock.now += 5
    assert progress.seconds_left() == pytest.approx(50 * 0.3 - 5 + 4 * 100 * 0.3)


def test_finished_trials_tell_how_long_their_like_take(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 2, clock)
    for trial, seconds in zip(compression[:2], (10.0, 30.0), strict=True):
        progress.update(JobStarted(trial))
        progress.update(JobFinished(trial, result_after(trial, seconds)))
    assert progress.seconds_left() == pytest.approx(3 * 20 / 2)
    progress.update(JobStarted(compression[2]))
    clock.now += 5
    assert progress.seconds_left() == pytest.approx((15 + 2 * 20) / 2)


def test_a_trial_may_stop_as_early_as_those_before_it(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression[:2], 1, clock)
    progress.update(JobStarted(compression[0]))
    progress.update(JobFinished(compression[0], result_after(compression[0], 4.0)))
    progress.update(JobStarted(compression[1]))
    clock.now += 1
    progress.update(JobProgressed(compression[1], Progress(10, 100, 100.0, None)))
    assert progress.seconds_left() == pytest.approx(4 - 1)
    clock.now += 4
    progress.update(JobProgressed(compression[1], Progress(50, 100, 100.0, None)))
    assert progress.seconds_left() == pytest.approx(50 * 4 / 40)  # it has not stopped early: its own pace counts


def test_the_last_trial_is_not_shared_among_workers(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression[:2], 2, clock)
    for trial, step in zip(compression, (10, 90), strict=False):
        progress.update(JobStarted(trial))
        progress.update(JobProgressed(trial, Progress(step, 100, 10.0, None)))
    assert progress.seconds_left() == pytest.approx(90)


def test_other_tasks_are_foreseen_by_their_flops(clock: Clock):
    trials = plan(["mlp"], TASKS, seeds=[0], recipe=RECIPE)
    progress = RunProgress(trials, 1, clock)
    progress.update(JobStarted(trials[0]))
    progress.update(JobFinished(trials[0], result_after(trials[0], 10.0)))
    assert progress.seconds_left() == pytest.approx(10 * trials[1].flops / trials[0].flops)
    progress.update(JobReused(trials[1], result_after(trials[1], 99.0)))
    assert progress.seconds_left() == 0


def test_counts_and_best_scores(clock: Clock, compression: list[Trial]):
    progress = RunProgress([*compression, compression[0]], 2, clock)
    assert (progress.total, progress.done) == (5, 0)
    progress.update(JobReused(compression[0], result_after(compression[0], 1.0, right=1)))
    for trial, right in zip(compression[1:3], (3, 2), strict=True):
        progress.update(JobStarted(trial))
        progress.update(JobFinished(trial, result_after(trial, 1.0, right)))
    progress.update(JobStarted(compression[3]))
    progress.update(JobProgressed(compression[3], Progress(1, 100, 123.0, None)))
    assert progress.speed == 123
    progress.update(JobFailed(compression[3], "ValueError: unlucky"))
    assert (progress.reused, progress.computed, progress.failed, progress.done) == (1, 2, 1, 4)
    assert (len(progress.running), len(progress.waiting)) == (0, 1)
    assert progress.best == {(compression[0].architecture.label, "compression"): 0.75}
    progress.update(RunEnded(RunSummary(total=5, reused=1, computed=3), interrupted=True))
    assert progress.computed == 3


def test_trials_that_are_not_needed_are_not_waited_for(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 1, clock)
    progress.update(JobStarted(compression[0]))
    progress.update(JobFinished(compression[0], result_after(compression[0], 10.0)))
    progress.update(JobsSkipped(tuple(compression[1:4])))
    assert (progress.done, progress.skipped, len(progress.waiting)) == (4, 3, 1)
    assert progress.seconds_left() == pytest.approx(10)
    progress.update(JobStarted(compression[4]))
    progress.update(JobsSkipped((compression[4],)))  # it ran, and was stopped
    assert (progress.done, progress.running, progress.seconds_left()) == (5, {}, 0.0)


def test_trials_that_share_a_worker_share_its_time(clock: Clock, compression: list[Trial]):
    progress = RunProgress(compression, 1, clock)
    for trial in compression[:4]:
        progress.update(JobStarted(trial))
    for step in (0, 10):
        clock.now += 4
        for trial in compression[:4]:
            progress.update(JobProgressed(trial, Progress(step, 100, 10.0, None)))
    # four at once take 0.4 s a step: 36 s for their other 90 steps, and the fifth a quarter of 40 s
    assert progress.seconds_left() == pytest.approx(36 + 10)


@pytest.fixture
def models() -> list[LMTrial]:
    """Four language models of two architectures, the most expensive first."""
    return [synthetic_ladders.trial(label, 1e17, size, 1e9) for size in (4e6, 1e6) for label in "ab"]


def lm_progress(step: int, start_step: int = 0) -> LMProgress:
    return LMProgress(step, start_step, num_steps=1000, tokens_per_second=1e6, loss=4.0)


def test_language_models_are_foreseen_by_their_flops(clock: Clock, models: list[LMTrial]):
    progress = RunProgress(models, 1, clock)
    progress.update(JobStarted(models[0]))
    assert progress.seconds_left() is None
    progress.update(JobProgressed(models[0], lm_progress(1)))
    # 1e6 tokens a step at 1e6 a second are 1 s a step; the others take 1, 1/4 and 1/4 of its FLOPs
    assert progress.seconds_left() == pytest.approx(999 + 1000 * 1.5)
    clock.now += 99
    progress.update(JobProgressed(models[0], lm_progress(100)))
    assert progress.seconds_left() == pytest.approx(900 + 1000 * 1.5)
    progress.update(JobFinished(models[0], synthetic_ladders.result(3.0)))  # took 100 s
    assert progress.seconds_left() == pytest.approx(100 * 1.5)


def test_a_language_model_that_is_taken_up_again_has_only_its_rest_before_it(clock: Clock, models: list[LMTrial]):
    progress = RunProgress(models[:1], 1, clock)
    progress.update(JobStarted(models[0]))
    progress.update(JobProgressed(models[0], lm_progress(901, start_step=900)))
    clock.now += 20
    progress.update(JobProgressed(models[0], lm_progress(911, start_step=900)))
    assert progress.seconds_left() == pytest.approx(89 * 2)


def test_sizes_have_paces_of_their_own(clock: Clock, models: list[LMTrial]):
    a_large, _, a_small, b_small = models
    progress = RunProgress([a_large, a_small, b_small], 1, clock)
    for model, seconds in ((a_large, 400.0), (a_small, 300.0)):
        progress.update(JobStarted(model))
        progress.update(JobFinished(model, replace(synthetic_ladders.result(3.0), seconds=seconds)))
    # no model of b's kind or architecture has finished: the mean of 100 and 300 s for that many FLOPs
    assert progress.seconds_left() == pytest.approx(200)
    same = RunProgress([a_large, a_small, replace(a_small, run=replace(a_small.run, seed=1))], 1, clock)
    for model, seconds in ((a_large, 400.0), (a_small, 300.0)):
        same.update(JobStarted(model))
        same.update(JobFinished(model, replace(synthetic_ladders.result(3.0), seconds=seconds)))
    assert same.seconds_left() == pytest.approx(300)
