import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.cli.command_line import hear_interrupts
from tests.fake_training import FAILING_SEED, LoggedTraining, make_trials, threads
from tests.synthetic_records import result

from archlab.errors import ArchlabError
from archlab.jobs.events import (
    JobFailed,
    JobFinished,
    JobProgressed,
    JobReused,
    JobsSkipped,
    JobStarted,
    RunEnded,
    RunStarted,
    Waiting,
)
from archlab.jobs.local import LocalExecutor
from archlab.jobs.policy import Policy
from archlab.jobs.scheduler import run
from archlab.machine import process_started
from archlab.mad.racing import Racing
from archlab.mad.store import TrialStore
from archlab.mad.trial import Progress, Trial
from archlab.store.owner import Owner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def train(tmp_path):
    return LoggedTraining(tmp_path / "log", seconds=0.01)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archlab.db"


@pytest.fixture
def store(path):
    with TrialStore(path) as opened:
        yield opened


@pytest.fixture
def executor(train):
    with threads(train) as opened:
        yield opened


class ByParity(Trial):
    """Trials of even and of odd seeds come from different modules."""

    origin = property(lambda self: "theirs" if self.seed % 2 else "")


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


# One run


def test_a_free_worker_goes_on_with_the_origin_that_it_serves(store, train):
    trials, events = [ByParity(**vars(trial)) for trial in make_trials(8)], []
    with threads(train, 1) as executor:
        run(trials, store, executor, listeners=[events.append])
    assert [event.job.seed for event in of(JobStarted, events)] == [0, 2, 4, 6, 1, 3, 5, 7]


def test_all_trials_are_computed_in_order_and_told_of(store, executor, train):
    trials, events = make_trials(6), []
    summary = run([*trials, trials[0]], store, executor, listeners=[events.append])
    assert sorted(train.seeds()) == list(range(6))
    assert [event.job for event in of(JobStarted, events)] == trials
    assert {(event.job, event.progress) for event in of(JobProgressed, events)} == {
        (t, Progress(1, 2, 10.0, None)) for t in trials
    }
    assert Counter(event.job.seed for event in of(JobFinished, events)) == Counter(range(6))
    for event in of(JobFinished, events):
        assert event.result.to_dict() == result(event.job, [1, 2, event.job.seed % 5], curve=[(500, 0.25), (1000, 0.5)]).to_dict()
    assert (summary.total, summary.computed, summary.reused, summary.failed) == (6, 6, 0, {})
    assert 0.03 < summary.wall_seconds < 600
    assert events[-1] == RunEnded(summary, interrupted=False)
    assert [record.status for record in store.records()] == ["finished"] * 6
    assert all(record.provenance["wall_seconds"] >= 0.005 and record.provenance["torch"] for record in store.records())


def test_no_more_trials_are_claimed_than_there_are_workers(store, train):
    running = []
    with threads(train, num_workers=3) as executor:
        run(make_trials(7), store, executor, listeners=[lambda _: running.append(len(store.records(statuses=["running"])))])
    assert max(running) == 3


class MostExpensiveFirst(Policy):
    def order(self, waiting, running):
        return sorted(waiting.values(), key=lambda job: -job.flops)


def test_the_most_expensive_jobs_can_start_first(store, train):
    small, large, middle = (replace(trial, dim=dim) for trial, dim in zip(make_trials(3), (64, 256, 128), strict=True))
    events = []
    with threads(train, num_workers=1) as executor:
        run([small, large, middle], store, executor, policy=MostExpensiveFirst(), listeners=[events.append])
    assert [event.job for event in of(JobStarted, events)] == [large, middle, small]


@pytest.mark.parametrize(("grace", "kept"), [(30.0, ["finished"]), (0.0, [])])
def test_what_ends_within_the_grace_is_kept_when_a_run_ends_early(store, tmp_path, grace, kept):
    def stop(event):
        if isinstance(event, JobProgressed):
            raise KeyboardInterrupt

    with threads(LoggedTraining(tmp_path / "log", seconds=1.0), num_workers=1) as executor, pytest.raises(KeyboardInterrupt):
        run(make_trials(2), store, executor, listeners=[stop], grace=grace)
    assert [record.status for record in store.records()] == kept


def test_what_is_stored_is_reused_and_never_computed_again(store, executor, train):
    trials, events = make_trials(4), []
    run(trials[:3], store, executor)
    store.finish(trials[3], result(trials[3], [1], status="diverged"), {})
    summary = run(trials[::-1], store, executor, listeners=[events.append])
    assert sorted(train.seeds()) == [0, 1, 2]
    assert (summary.reused, summary.count("diverged"), summary.computed) == (4, 1, 0)
    assert [type(event) for event in events] == [RunStarted, *[JobReused] * 4, RunEnded]
    assert [event.job for event in events[1:-1]] == trials[::-1]
    assert [event.result.status for event in events[1:-1]] == ["diverged", "finished", "finished", "finished"]
    assert events[0] == RunStarted(tuple(trials[::-1]), 2)


def test_what_the_caller_has_read_is_reused_and_not_read_again(store, executor, train, monkeypatch):
    trials = make_trials(3)
    run(trials[:2], store, executor)
    known, read, asked = store.outcomes(), store.outcomes, []
    monkeypatch.setattr(store, "outcomes", lambda keys, **more: asked.append([*keys]) or read(keys, **more))
    summary = run(trials, store, executor, known=known)
    assert (summary.reused, summary.computed) == (2, 1)
    assert asked[0] == [trials[2].key]
    assert sorted(train.seeds()) == [0, 1, 2]


def test_an_interruption_between_storing_and_counting_miscounts_nothing(store, executor, monkeypatch):
    finish, events = store.finish, []

    def finish_and_interrupt(*arguments):
        finish(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "finish", finish_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(make_trials(1), store, executor, listeners=[events.append])
    (record,) = store.records()
    assert record.status == "finished"
    summary = events[-1].summary
    assert (summary.computed, [*summary.results]) == (1, [record.key])
    assert summary.results[record.key].to_dict() == record.result.to_dict()
    assert 0 < summary.wall_seconds < 600


@pytest.mark.parametrize(
    ("error", "reason"), [(TimeoutError(), "TimeoutError"), (ValueError("two\n  lines"), "two lines")], ids=["bare", "two lines"]
)
def test_what_an_executor_raises_beside_its_own_errors_is_told_in_one_line(store, executor, monkeypatch, error, reason):
    def fail(jobs, *_):
        (future,) = futures = [Future() for _ in jobs]
        future.set_exception(error)
        return futures

    monkeypatch.setattr(executor, "submit", fail)
    (trial,) = make_trials(1)
    assert run([trial], store, executor).failed == {trial.key: reason}
    assert [record.error for record in store.records()] == [reason]


def test_a_run_beats_as_often_as_it_should_and_no_oftener(store, train, monkeypatch):
    beats, beat = [], store.heartbeat
    monkeypatch.setattr(store, "heartbeat", lambda: beats.append(beat()))
    for seconds, trials in ((60.0, make_trials(2)), (0.0, make_trials(2, start=2))):
        monkeypatch.setattr("archlab.jobs.running.HEARTBEAT_SECONDS", seconds)
        before = len(beats)
        with threads(train) as executor:
            run(trials, store, executor)
        assert (len(beats) - before > 1) == (seconds == 0.0)  # the first claim of a store beats once


def test_a_failing_trial_does_not_stop_the_others_and_is_tried_by_the_next_run(store, train):
    trials, events = make_trials(3, start=FAILING_SEED - 1), []
    with threads(train, num_workers=1) as executor:
        summary = run(trials, store, executor, listeners=[events.append])
        assert summary.computed == 2
        assert summary.failed == {trials[1].key: "ValueError: unlucky"}
        assert [(event.job, event.reason) for event in of(JobFailed, events)] == [(trials[1], "ValueError: unlucky")]
        (record,) = store.records(statuses=["failed"])
        assert record.job == trials[1]
        assert record.error.startswith("ValueError: unlucky\nTraceback")
        assert record.provenance["finished"] >= record.provenance["started"]
        assert run(trials, store, executor).failed == {trials[1].key: "ValueError: unlucky"}
    assert train.seeds() == [12, 13, 14, 13]


def test_a_store_that_cannot_be_written_ends_the_run(store, executor, train, monkeypatch):
    finish, finished = TrialStore.finish, []

    def until_the_disk_is_full(self, trial, *values):
        if len(finished) == 2:
            raise ArchlabError("the disk is full")
        finished.append(trial)
        finish(self, trial, *values)

    monkeypatch.setattr(TrialStore, "finish", until_the_disk_is_full)
    events = []
    with pytest.raises(ArchlabError, match="the disk is full"):
        run(make_trials(9), store, executor, listeners=[events.append])
    (ended,) = of(RunEnded, events)
    assert (ended.interrupted, ended.summary.computed) == (True, 2)
    assert [record.status for record in store.records()] == ["finished"] * 2
    assert len(train.seeds()) < 9


def test_the_first_error_of_a_store_is_told_though_later_results_cannot_be_kept_either(store, tmp_path, monkeypatch):
    def full(self, trial, *values):
        raise ArchlabError(f"no room for {trial.seed}")

    monkeypatch.setattr(TrialStore, "finish", full)
    training = LoggedTraining(tmp_path / "log", seconds=0.2)
    with threads(training, num_workers=2) as executor, pytest.raises(ArchlabError, match="no room for"):
        run(make_trials(2), store, executor, grace=30.0)
    assert len(training.seeds()) == 2


class WithoutTheNext(Policy):
    """After a failure the job with the next seed is not needed."""

    def __init__(self, jobs):
        self.jobs = {job.seed: job for job in jobs}

    def failed(self, job):
        return [self.jobs[job.seed + 1]]


def test_a_policy_is_told_which_job_failed(store, train):
    trials = make_trials(3, start=FAILING_SEED)
    with threads(train, num_workers=1) as executor:
        summary = run(trials, store, executor, policy=WithoutTheNext(trials))
    assert (summary.computed, summary.skipped, [*summary.failed]) == (1, 1, [trials[0].key])
    assert train.seeds() == [FAILING_SEED, FAILING_SEED + 2]


class Enough(Policy):
    """Everything is unnecessary once the first job has a result."""

    def __init__(self, jobs):
        self.jobs = jobs

    def observe(self, job, result):
        return [other for other in self.jobs if other != job]


def test_running_jobs_that_are_not_needed_are_stopped_given_back_and_counted(store):
    trials, events, both_run = make_trials(4), [], threading.Barrier(3)
    ends = threading.Event()

    def train(trial, on_progress, thresholds):
        both_run.wait(20)
        if trial != trials[0]:
            ends.wait(20)
        return result(trial, [1])

    def listen(event):
        events.append(event)
        if isinstance(event, JobsSkipped) and len(of(JobsSkipped, events)) == 3:
            ends.set()

    with threads(train, num_workers=3) as executor:
        summary = run(trials, store, executor, policy=Enough(trials), listeners=[listen])
        ends.set()
    assert (summary.computed, summary.skipped) == (1, 3)
    assert sorted(job.seed for event in of(JobsSkipped, events) for job in event.jobs) == [1, 2, 3]
    assert [(record.job, record.status) for record in store.records()] == [(trials[0], "finished")]


def test_a_listener_that_raises_ends_the_run_with_the_claims_given_back(store, executor):
    events = []

    def raise_error(event):
        if isinstance(event, JobFinished):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(make_trials(9), store, executor, listeners=[raise_error, events.append])
    assert {record.status for record in store.records()} == {"finished"}
    assert [event.interrupted for event in of(RunEnded, events)] == [True]


# Several runs on one store


def test_trials_of_another_run_are_waited_for_and_reused(store, path, executor, train):
    trials, events = make_trials(3), []
    with TrialStore(path) as other:
        assert other.claim(trials[:2], 2) == trials[:2]
        waits = threading.Event()

        def finish_once_waited_for():
            waits.wait(10)
            for trial in trials[:2]:
                other.finish(trial, result(trial, [1]), {})

        def listen(event):
            events.append(event)
            if isinstance(event, Waiting):
                waits.set()

        thread = threading.Thread(target=finish_once_waited_for)
        thread.start()
        summary = run(trials, store, executor, listeners=[listen])
        thread.join()
    assert of(Waiting, events) == [Waiting(tuple(trials[:2]))]
    assert (summary.computed, summary.reused) == (1, 2)
    assert train.seeds() == [2]


def test_trials_of_a_run_that_dies_are_taken_over(store, path, executor, train):
    trials, events = make_trials(2), []
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        other = replace(Owner.of_this_process(), pid=process.pid, process_started=process_started(process.pid))
        with TrialStore(path, owner=other) as dying:
            dying.claim(trials, 2)

        def kill_once_waited_for(event):
            events.append(event)
            if isinstance(event, Waiting):
                process.kill()

        summary = run(trials, store, executor, listeners=[kill_once_waited_for])
    assert of(Waiting, events) == [Waiting(tuple(trials))]
    assert (summary.computed, summary.reused) == (2, 0)
    assert sorted(train.seeds()) == [0, 1]


# Runs as processes of their own


class Script:
    """The run script in a process group of its own."""

    def __init__(self, path, train, num_trials, kind):
        command = [sys.executable, "-m", "tests.jobs.run_script", path, train.log, str(num_trials), str(train.seconds), kind]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=hear_interrupts,
        )
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.stdout.close()
        self.process.stderr.close()
        self.process.wait()

    def wait_for(self, word, count):
        """Read output until so many lines start with the word."""
        while sum(line.startswith(word) for line in self.lines) < count:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.lines.append(line.strip())

    def end(self):
        """The last line of output, once the process has ended by itself."""
        output, errors = self.process.communicate(timeout=60)
        assert errors == ""
        return output.splitlines()[-1]

    def group_is_gone_within(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not any(self._alive(stat) for stat in Path("/proc").glob("[0-9]*/stat")):
                return True
            time.sleep(0.05)
        return False

    def _alive(self, stat):
        try:
            state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(group) == self.process.pid and state not in "ZX"


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@linux
@pytest.mark.slow
def test_a_run_that_is_killed_loses_what_was_in_flight_and_the_next_finishes_the_rest(path, tmp_path):
    slow = LoggedTraining(tmp_path / "log", seconds=0.3)
    with Script(path, slow, 6, "processes") as script:
        script.wait_for("JobFinished", 2)
        script.process.send_signal(signal.SIGKILL)
        script.process.wait()
        assert script.group_is_gone_within(3), "workers outlived their parent"
    with TrialStore(path, create=False) as store:
        before = {record.job.seed: record.status for record in store.records()}
    finished = {seed for seed, status in before.items() if status == "finished"}
    assert 2 <= len(finished) < 6
    assert set(before.values()) == {"finished", "running"}
    trained = len(slow.seeds())
    with Script(path, slow, 6, "threads") as script:
        assert script.end() == f"computed {6 - len(finished)} reused {len(finished)}"
    assert sorted(slow.seeds()[trained:]) == sorted(set(range(6)) - finished)
    with TrialStore(path, create=False) as store:
        assert [record.status for record in store.records()] == ["finished"] * 6


@linux
def test_ctrl_c_keeps_what_is_finished_and_gives_back_the_rest(path, tmp_path):
    slow = LoggedTraining(tmp_path / "log", seconds=0.3)
    with Script(path, slow, 8, "processes") as script:
        script.wait_for("JobFinished", 2)
        script.wait_for("JobStarted", 4)
        os.killpg(script.process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
        output, errors = script.process.communicate(timeout=10)
        assert script.group_is_gone_within(3)
    told = int(output.split()[-1])
    assert output.splitlines()[-1] == f"interrupted after {told}"
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1, "a worker complained"
    with TrialStore(path, create=False) as store:
        assert [record.status for record in store.records()] == ["finished"] * told
    assert 2 <= told < 8


@linux
def test_a_worker_that_is_killed_costs_one_attempt(path, tmp_path):
    slow = LoggedTraining(tmp_path / "log", seconds=0.5)
    with Script(path, slow, 3, "processes") as script:
        while not slow.seeds():
            time.sleep(0.02)
        os.kill(slow.workers()[-1], signal.SIGKILL)
        assert script.end() == "computed 3 reused 0"
    again = Counter(slow.seeds())
    assert set(again) == {0, 1, 2}
    assert sum(again.values()) == 4


@pytest.mark.slow
def test_two_runs_on_one_store_compute_each_trial_once(path, tmp_path):
    train = LoggedTraining(tmp_path / "log", seconds=0.1)
    with Script(path, train, 12, "threads") as one, Script(path, train, 12, "threads") as two:
        lines = [one.end().split(), two.end().split()]
    assert sorted(train.seeds()) == list(range(12))
    assert [int(line[1]) + int(line[3]) for line in lines] == [12, 12]
    assert sum(int(line[1]) for line in lines) == 12


@dataclass(frozen=True)
class LoggedGroups:
    """Writes the seeds that it is given together into a log, a line each time."""

    log: Path

    def __call__(self, trials, on_progress, thresholds):
        with self.log.open("a") as file:
            file.write(" ".join(str(trial.seed) for trial in trials) + "\n")
        for place, trial in enumerate(trials):
            yield place, result(trial, [1, 2])


def test_trials_that_are_alike_are_trained_together(store, tmp_path):
    first, other = make_trials(5), [replace(trial, dim=64) for trial in make_trials(2)]
    with LocalExecutor(LoggedGroups(tmp_path / "log"), 1) as executor:
        trials = [*first[:3], *other, *first[3:]]
        summary = run(trials, store, executor, policy=Racing(trials, "off", population=4))
    assert summary.computed == len(store.records()) == 7
    assert (tmp_path / "log").read_text().splitlines() == ["0 1 2 3", "0 1", "4"]
