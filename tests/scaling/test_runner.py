"""What a store lacks is trained once, by whoever claims it; what fails is named and tried again."""

import math

import pytest
from tests.fake_training import threads
from tests.scaling.synthetic_ladders import result, trial

from archlab.errors import ArchlabError
from archlab.jobs.events import JobFinished, RunSummary, Waiting
from archlab.scaling.result import LMProgress
from archlab.scaling.runner import train_all
from archlab.scaling.store import StudyStore

SIZES = (1e6, 2e6, 4e6, 8e6)


@pytest.fixture
def trials():
    return [trial("a", 1e17, size, 1e17 / 6 / size, corpus_hash="0") for size in SIZES]


class Trainer:
    """Trains in no time; fails at given sizes."""

    def __init__(self, *failing: float) -> None:
        self.failing, self.trained = failing, []

    def __call__(self, one, on_progress, thresholds):
        self.trained.append(one.run.params)
        on_progress(LMProgress(1, 0, 1000, 1e4, 5.0))
        if one.run.params in self.failing:
            raise ValueError("unlucky")
        return result(math.log(one.run.params))


def run(path, trials, train, *listeners) -> RunSummary:
    with StudyStore(path / "a.db") as store, threads(train, 2) as executor:
        return train_all(trials, store, executor, path / "checkpoints", listeners)


def test_a_ladder_is_trained_once_and_stored(tmp_path, trials):
    train, events = Trainer(), []
    summary = run(tmp_path, trials, train, events.append)
    assert sorted(train.trained) == list(SIZES)
    assert [summary.results[one.key].loss for one in trials] == [math.log(size) for size in SIZES]
    assert sum(isinstance(event, JobFinished) for event in events) == 4
    again = run(tmp_path, trials, train, events.append)
    assert (len(train.trained), again.reused, len(again.results)) == (4, 4, 4)
    with StudyStore(tmp_path / "a.db", create=False) as store:
        assert {record.status for record in store.records()} == {"finished"}
        assert all(record.provenance["wall_seconds"] >= 0 for record in store.records())


def test_what_fails_is_named_and_tried_again(tmp_path, trials):
    summary = run(tmp_path, trials, Trainer(2e6))
    assert summary.failed == {trials[1].key: "ValueError: unlucky"}
    assert len(summary.results) == 3
    train = Trainer()
    assert len(run(tmp_path, trials, train).results) == 4
    assert train.trained == [2e6]


def test_what_another_run_computes_is_waited_for(tmp_path, trials):
    with StudyStore(tmp_path / "a.db") as other:
        (held,) = other.claim(trials[:1], 1)
        events = []

        def hear(event):
            events.append(event)
            if isinstance(event, Waiting):
                other.finish(held, result(2.0), {})

        train = Trainer()
        summary = run(tmp_path, trials, train, hear)
    assert summary.results[held.key].loss == 2.0
    assert sorted(train.trained) == list(SIZES[1:])
    assert Waiting((held,)) in events


def test_an_interrupt_keeps_what_is_done_and_gives_the_rest_back(tmp_path, trials):
    def stop_after_one(event):
        if isinstance(event, JobFinished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, trials, Trainer(), stop_after_one)
    with StudyStore(tmp_path / "a.db", create=False) as store:
        statuses = [record.status for record in store.records()]
    assert set(statuses) == {"finished"}
    train = Trainer()
    assert len(run(tmp_path, trials, train).results) == 4
    assert len(train.trained) == 4 - len(statuses)


def test_a_plan_that_calls_a_known_run_otherwise_renames_it(tmp_path, trials):
    run(tmp_path, trials, Trainer())
    renamed = [trial("a", 1e17, size, 1e17 / 6 / size, corpus_hash="0", convention="6nd") for size in SIZES]
    assert run(tmp_path, renamed, Trainer(*SIZES)).reused == 4
    with StudyStore(tmp_path / "a.db", create=False) as store:
        assert {record.job.run.convention for record in store.records()} == {"6nd"}


def test_a_store_that_is_something_else_is_refused(tmp_path, trials):
    (tmp_path / "a.db").write_text("not a store")
    with pytest.raises(ArchlabError, match="not an SQLite database"):
        run(tmp_path, trials, Trainer())
