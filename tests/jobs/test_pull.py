"""Runs that leave their jobs to workers of their store, and these workers."""

import threading
from functools import partial

import pytest
from sqlalchemy import update
from tests.fake_training import FAILING_SEED, LoggedTraining, make_trials, threads

from archlab.errors import ArchlabError
from archlab.jobs import pull
from archlab.jobs.events import JobFailed, JobFinished, JobStarted
from archlab.jobs.executor import make_executor
from archlab.jobs.policy import Policy
from archlab.jobs.pull import Elsewhere, Order, submit, work
from archlab.mad.store import TrialStore
from archlab.store.schema import submissions as table
from archlab.store.submissions import Submissions


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    return tmp_path / "archlab.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "archlab.db"


@pytest.fixture
def train(tmp_path):
    return LoggedTraining(tmp_path / "log", seconds=0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pull, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("archlab.jobs.running.POLL_SECONDS", 0.05)
    monkeypatch.setattr("archlab.jobs.scheduler.POLL_SECONDS", 0.05)


def submitted(place, trials, priority=0, listeners=()):
    """Submit and wait, in a thread; returns it, and a list that takes the summary."""
    summaries, ready = [], threading.Event()
    with TrialStore(place):
        pass

    def wait():
        with TrialStore(place) as store:
            seeds = {"seeds": [trial.seed for trial in trials]}
            options = {"executor": Elsewhere(None), "policy": Policy(), "listeners": listeners}
            summaries.append(submit(trials, store, seeds, number=1, priority=priority, **options))
        ready.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    with Submissions(place) as opened:
        while not any(one.keys == [trial.key for trial in trials] for one in opened.open()) and not ready.is_set():
            pass
    return thread, summaries


def read(one, opened):
    """The toy trials of a submission; those of odd seeds beyond 100 are unknown here."""
    trials = [trial for seed in one.what["seeds"] for trial in make_trials(1, start=seed)]
    mine = [trial for trial in trials if trial.seed < 100]
    return Order(mine, "others are left to others" if len(mine) < len(trials) else "", TrialStore(opened), Policy())


def serve(place, train, told=None, reader=read, slots=2, **options):
    with Submissions(place) as opened, threads(train, slots) as executor:
        return work(opened, executor, {"mad": reader}, tell=(told if told is not None else []).append, **options)


def test_two_workers_compute_a_run_each_trial_once_and_the_run_hears_of_all(place, train):
    trials, events, heard = make_trials(12), [], threading.Event()

    def listener(event):
        events.append(event)
        if isinstance(event, JobStarted):
            heard.set()

    def once_heard(*arguments):
        """A training that no look of the waiting run misses."""
        heard.wait(20)
        return train(*arguments)

    thread, summaries = submitted(place, trials, listeners=[listener])
    other = threading.Thread(target=partial(serve, place, once_heard, max_idle=0.3))
    other.start()
    serve(place, once_heard, max_idle=0.3)
    other.join(20)
    thread.join(20)
    assert sorted(train.seeds()) == [trial.seed for trial in trials]
    (summary,) = summaries
    assert (summary.computed, summary.reused, summary.failed, len(summary.results)) == (12, 0, {}, 12)
    finished = [event for event in events if isinstance(event, JobFinished)]
    assert {event.job.key: event.result for event in finished} == summary.results
    assert len(finished) == 12
    begun = [event.job.key for event in events if isinstance(event, JobStarted)]
    assert begun
    assert len(begun) == len(set(begun))
    with Submissions(place) as opened:
        assert opened.open() == []


def test_the_workers_go_on_without_the_one_who_submitted(file, train):
    trials = make_trials(4)
    with TrialStore(file) as store, Submissions(store) as opened:
        opened.submit(1, "mad", {"seeds": [0, 1, 2, 3]}, [trial.key for trial in trials], 0)
    assert serve(file, train, max_idle=0.1) == 4
    with TrialStore(file) as store:
        assert {record.status for record in store.records()} == {"finished"}


def test_a_failure_counts_for_all_workers_until_the_run_is_submitted_again(file, train):
    trials, events = make_trials(1, start=FAILING_SEED), []
    for attempts in (1, 2):
        thread, summaries = submitted(file, trials, listeners=[events.append])
        for _ in range(2):
            serve(file, train, max_idle=0.1)
        thread.join(20)
        assert len(train.seeds()) == attempts, "each submission is one attempt, however many workers there are"
        assert [*summaries[0].failed.values()] == ["ValueError: unlucky"]
    assert sum(isinstance(event, JobFailed) for event in events) == 2


def test_the_highest_priority_comes_first(file, train):
    with TrialStore(file) as store, Submissions(store) as opened:
        for number, (seeds, priority) in enumerate([([0, 1], 0), ([2, 3], 5), ([4, 5], 0)]):
            keys = [trial.key for seed in seeds for trial in make_trials(1, start=seed)]
            opened.submit(number, "mad", {"seeds": seeds}, keys, priority)
    serve(file, train, slots=1, max_idle=0.1)
    assert train.seeds() == [2, 3, 0, 1, 4, 5]


def test_damaged_submissions_are_named_once_and_the_others_are_computed(file, train):
    told, good = [], make_trials(1)

    def strict(one, opened):
        order = read(one, opened)
        assert [trial.key for trial, _ in zip(order.jobs, one.keys, strict=True)] == one.keys
        return order

    with TrialStore(file) as store, Submissions(store) as opened:
        opened.submit(1, "mad", {"seeds": [0]}, [good[0].key], 0)
        for run, (what, keys) in enumerate([([0], []), ({}, []), ({"seeds": ["x"]}, []), ({"seeds": [0]}, [])], start=2):
            values = {"run": run, "kind": "mad", "priority": 9, "status": "open", "what": what, "keys": keys}
            with opened._write() as connection:
                connection.execute(table.insert().values(values))
    assert serve(file, train, told, reader=strict, max_idle=0.3) == 1
    assert sorted(line.partition(":")[0] for line in told) == [
        "run 3 is left to others",
        "run 4 is left to others",
        "run 5 is left to others",
        "submission 2 is damaged and left out",
    ]
    assert all("\n" not in line and "it is damaged" in line for line in told if line.startswith("run"))


def test_what_a_worker_does_not_know_is_left_to_others_and_said_once(file, train):
    told, trials = [], [*make_trials(1), *make_trials(1, start=101)]
    with TrialStore(file) as store, Submissions(store) as opened:
        opened.submit(7, "mad", {"seeds": [0, 101]}, [trial.key for trial in trials], 0)
        opened.submit(8, "of the future", {}, [], 0)
        opened.submit(9, "mad", {"strange": 1}, ["k"], 0)
    serve(file, train, told, max_idle=0.3)
    assert told == [
        "run 7: others are left to others",
        "run 8 is left to others: it is damaged, or of another version of archlab: KeyError: 'of the future'",
        "run 9 is left to others: it is damaged, or of another version of archlab: KeyError: 'seeds'",
    ]
    assert train.seeds() == [0]
    with Submissions(file) as opened:
        assert [one.run for one in opened.open()] == [7, 8, 9]


def test_a_worker_that_is_ended_gives_its_claims_back(file):
    class Ended(KeyboardInterrupt):
        pass

    def end(event):
        if isinstance(event, JobStarted):
            raise Ended

    def reader(one, opened):
        order = read(one, opened)
        return Order(order.jobs, "", order.store, order.policy, [end])

    trials = make_trials(3)
    with TrialStore(file) as store, Submissions(store) as opened:
        opened.submit(1, "mad", {"seeds": [0, 1, 2]}, [trial.key for trial in trials], 0)
        with pytest.raises(Ended):
            serve(file, lambda *_: None, reader=reader)
        assert store.records() == []
        assert store.claim(trials, 9) == trials


def test_a_withdrawn_run_is_stopped(file):
    going = threading.Event()

    def train(trial, on_progress, thresholds):
        with Submissions(file) as opened:
            opened.withdraw(4)
        going.wait(0.3)
        raise ValueError("it is stopped, so nobody hears of this")

    trials = make_trials(3)
    with TrialStore(file) as store, Submissions(store) as opened:
        opened.submit(4, "mad", {"seeds": [0, 1, 2]}, [trial.key for trial in trials], 0)
        serve(file, train, slots=1, max_idle=0.5)
        assert store.records() == []
        with pytest.raises(ArchlabError, match="run 4 has nothing that workers still compute"):
            opened.withdraw(4)


def test_time_that_is_over_ends_with_what_runs(file, train):
    trials = make_trials(3)
    with TrialStore(file) as store, Submissions(store) as opened:
        opened.submit(1, "mad", {"seeds": [0, 1, 2]}, [trial.key for trial in trials], 0)
    assert serve(file, train, max_seconds=0) == 0
    assert train.seeds() == []


def test_the_same_run_submitted_again_joins_the_open_one(file):
    with TrialStore(file) as store, Submissions(store) as opened:
        assert opened.submit(1, "mad", {"seeds": [0]}, ["k"], 0) == opened.submit(2, "mad", {"seeds": [0]}, ["k"], 3)
        assert [(one.run, one.priority) for one in opened.open()] == [(2, 3)]
        with opened._write() as connection:
            connection.execute(update(table).values(keys={"no": "list"}))
        assert opened.open() == []


def test_no_store_no_worker(file):
    with pytest.raises(ArchlabError, match=r"does not exist: `archlab run SPEC --executor workers --store .*` makes it"):
        Submissions(file)
    assert not file.exists()


def test_workers_elsewhere_are_for_those_who_submit_and_have_no_number_here():
    with pytest.raises(ArchlabError, match="executor='workers': only runs and training runs are submitted: choose local or ray"):
        make_executor(print, name="workers")
    assert make_executor(print, name="workers", submits=True).num_workers == 0
    with pytest.raises(ArchlabError, match=r"`archlab work --slots 3` says how many"):
        make_executor(print, 3, name="workers", submits=True)
