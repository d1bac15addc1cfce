import pytest
from tests.scaling import synthetic_ladders

from archlab.scaling import submission
from archlab.scaling.store import StudyStore
from archlab.store.submissions import Submissions


@pytest.fixture
def opened(tmp_path):
    StudyStore(tmp_path / "archlab.db").close()
    with Submissions(tmp_path / "archlab.db") as submissions:
        yield submissions


@pytest.fixture
def trials():
    return [synthetic_ladders.trial("a", 1e17, 1e6, 1e17 / 6e6, seed=seed, corpus_hash="0") for seed in range(3)]


def read(opened, trials, tmp_path, keys=None, device="cpu"):
    opened.submit(1, "scaling", submission.describe(trials), keys or [trial.key for trial in trials], 0)
    return submission.read(opened.open()[-1], opened, device, tmp_path / "checkpoints", "none")


def test_training_runs_of_other_code_devices_and_corpora_are_left(opened, trials, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "_lacks_corpus", lambda trial: "corpus x: is not here" if trial.run.seed == 2 else "")
    order = read(opened, trials, tmp_path, keys=["other code", *(trial.key for trial in trials[1:])])
    assert order.jobs == trials[1:2]
    assert order.left == (
        "1 of 3 training runs are left to others: the code or a library of this machine is another version than the "
        "submitter's; 1 of 3 training runs are left to others: corpus x: is not here"
    )
    assert "they are for --device cpu" in read(opened, trials, tmp_path, device="cuda").left


def test_a_corpus_that_is_another_here_is_named(opened, trials, tmp_path):
    order = read(opened, trials, tmp_path)
    assert order.jobs == []
    assert "are left to others: " in order.left
    assert "corpus" in order.left
