import pytest
from tests.fake_training import FAILING_SEED, LoggedTraining, make_trials, threads

from archlab.errors import ArchlabError, Terminated
from archlab.jobs import scheduler
from archlab.jobs.attempts import noted
from archlab.jobs.events import JobFinished
from archlab.mad.store import TrialStore


@pytest.fixture
def store(tmp_path):
    with TrialStore(tmp_path / "archlab.db") as opened:
        yield opened


ENDS = {
    KeyboardInterrupt(): "stopped by Ctrl-C",
    Terminated(): "stopped by SIGTERM",
    ArchlabError("the disk is full"): "ended by an error: the disk is full",
}


@pytest.mark.parametrize("error", ENDS, ids=ENDS.values())
def test_a_run_that_ends_before_its_time_says_how(store, tmp_path, error):
    def end(event):
        if isinstance(event, JobFinished):
            raise error

    def compute():
        with noted(store, 7, "local", "cpu") as attempt, threads(LoggedTraining(tmp_path / "log"), 1) as executor:
            scheduler.run(make_trials(3), store, executor, listeners=[attempt, end])

    with pytest.raises(type(error)):
        compute()
    found = store.attempts()[7]
    assert (found.end, found.ended["computed"], found.is_alive) == (ENDS[error], 1, False)
    assert found.begun["executor"] == "local"
    assert {"host", "torch", "archlab", "pid", "at"} <= found.begun.keys()


def test_the_latest_attempt_counts(store, tmp_path):
    train = LoggedTraining(tmp_path / "log", seconds=0)
    for start, how in ((FAILING_SEED, "1 failed"), (0, "done")):
        with noted(store, 1, "ray:auto", "cpu") as attempt, threads(train, 1) as executor:
            assert store.attempts()[1].end == "running"
            scheduler.run(make_trials(1, start=start), store, executor, listeners=[attempt])
        found = store.attempts()[1]
        assert (found.end, found.begun["executor"]) == (how, "ray")


def test_an_attempt_without_an_end_was_killed(store):
    store.begin_attempt(1, {})
    store.release()
    assert store.attempts()[1].end == "killed"
