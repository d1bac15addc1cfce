"""Servers that restart, links that are cut and confirmations that are lost cost no result, and double none."""

import threading
import time
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import OperationalError
from tests.fake_training import LoggedTraining, make_trials, threads
from tests.synthetic_records import PROVENANCE, result

from archlab.errors import ArchlabError
from archlab.jobs import scheduler
from archlab.jobs.events import JobFinished
from archlab.mad.store import TrialStore
from archlab.store import database
from archlab.store.database import LostError


@pytest.mark.parametrize("at_once", [False, True], ids=["restart", "power cut"])
def test_a_restart_in_the_middle_of_a_run_loses_and_doubles_nothing(server, postgres, tmp_path, at_once):
    trials, train = make_trials(12), LoggedTraining(tmp_path / "log", seconds=0.05)
    restarts = []

    def restart():
        server.stop(at_once=at_once)
        time.sleep(0.5)
        server.start()

    def restart_once(event):
        if isinstance(event, JobFinished) and not restarts:
            restarts.append(threading.Thread(target=restart))
            restarts[0].start()
            time.sleep(0.1)  # it is going down now

    with TrialStore(postgres) as store, threads(train) as executor:
        summary = scheduler.run(trials, store, executor, listeners=[restart_once])
        restarts[0].join()
        assert sorted(train.seeds()) == [trial.seed for trial in trials]
        assert (summary.computed, summary.failed) == (12, {})
        assert {record.status for record in store.records()} == {"finished"}
        assert store.claim(trials, 99) == []


def test_a_server_that_stays_away_is_one_line(server, postgres, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.3)
    with TrialStore(postgres) as store:
        server.stop()
        try:
            started = time.monotonic()
            with pytest.raises(
                ArchlabError, match=r"^store .*: the server cannot be reached \(.*\): what is stored is intact$"
            ) as told:
                store.records()
            assert 0.3 < time.monotonic() - started < 5
            assert "\n" not in str(told.value)
            with pytest.raises(ArchlabError, match="cannot be reached"):
                TrialStore(postgres)
        finally:
            server.start()
        assert store.records() == []


def test_a_process_has_one_connection(server, postgres):
    with TrialStore(postgres) as store:
        for trial in make_trials(5):
            store.finish(trial, result(trial, [1]), PROVENANCE)
            store.records()
        name = postgres.rpartition("/")[2]
        assert server.execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'") == [(1,)]


@pytest.fixture
def store(tmp_path):
    with TrialStore(tmp_path / "archlab.db") as opened:
        yield opened


def unconfirmed(store, monkeypatch):
    """Let the next transaction be committed, and its confirmation be lost."""
    write = store._write

    @contextmanager
    def cut():
        monkeypatch.setattr(store, "_write", write)
        with write() as connection:
            yield connection
        raise LostError("the link was cut")

    monkeypatch.setattr(store, "_write", cut)


def test_a_claim_whose_confirmation_was_lost_is_still_ones_own(store, monkeypatch):
    trials = make_trials(2)
    take = store._take

    def take_unconfirmed(*claim):
        monkeypatch.setattr(store, "_take", take)
        unconfirmed(store, monkeypatch)
        return take(*claim)

    monkeypatch.setattr(store, "_take", take_unconfirmed)
    assert store.claim(trials[:1], 1) == []
    assert store.claim(trials, 1) == trials[:1]
    assert store.claim(trials, 9) == trials[1:], "it is claimed once"


def test_what_was_committed_unconfirmed_is_not_done_twice(store, monkeypatch):
    first, second, third = store.claim(make_trials(3), 3)
    for change in (
        lambda: store.finish(first, result(first, [1]), PROVENANCE),
        lambda: store.fail(second, "it was late", {}),
        lambda: store.give_back(third),
        lambda: store.remember_run({"what": "one"}),
        store.release,
    ):
        unconfirmed(store, monkeypatch)
        change()
    assert [(record.job, record.status) for record in store.records()] == [(first, "finished"), (second, "failed")]
    assert [run.plan["what"] for run in store.runs()] == ["one"]


class RefusedError(Exception):
    sqlstate = None


@pytest.mark.parametrize(("state", "lost"), [(None, True), ("57P01", True), ("40P01", True), ("53300", True), ("53100", False)])
def test_errors_that_pass_are_told_from_those_that_stay(store, state, lost):
    error = RefusedError("no")
    error.sqlstate = state
    with pytest.raises(ArchlabError) as told, database.plain_errors("s", store._engine.url):
        raise OperationalError("SELECT", {}, error)
    assert isinstance(told.value, LostError) == lost
