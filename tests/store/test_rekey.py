"""Results are carried over a change of the code that changes no number: all or none, and no result is lost."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fake_training import make_trials
from tests.synthetic_records import PROVENANCE, result

from archlab import stores
from archlab.errors import ArchlabError
from archlab.mad.store import TrialStore
from archlab.mad.trial import Trial
from archlab.store.rekey import rekey

FIXTURES = Path(__file__).parent.parent / "fixtures"


@dataclass(frozen=True)
class Earlier:
    """A trial with the key that an earlier code gave it."""

    trial: Trial
    key: str

    @property
    def costs(self):
        return self.trial.costs

    def to_dict(self):
        return self.trial.to_dict()


@pytest.fixture
def store(tmp_path):
    with TrialStore(tmp_path / "archlab.db") as opened:
        yield opened


def present_key(trial: Trial) -> str:
    return trial.key


def scores(store: TrialStore) -> dict[str, float]:
    return {record.key: record.result.score for record in store.records() if record.result is not None}


def test_results_get_the_present_key_and_are_not_computed_again(store):
    trials = make_trials(3)
    for number, trial in enumerate(trials):
        store.finish(Earlier(trial, f"old{number}"), result(trial, [number]), PROVENANCE)
    expected = [record.result.score for record in store.records()]
    assert rekey(store, present_key) == {"moved": 3, "current": 0, "kept": 0, "left": 0}
    assert [record.key for record in store.records()] == [trial.key for trial in trials]
    assert [record.result.score for record in store.records()] == expected
    assert store.claim(trials, 3) == []
    assert rekey(store, present_key) == {"moved": 0, "current": 3, "kept": 0, "left": 0}


def test_a_result_of_the_present_code_stays(store):
    (trial,) = make_trials(1)
    store.finish(Earlier(trial, "old"), result(trial, [1]), PROVENANCE)
    store.finish(trial, result(trial, [4]), PROVENANCE)
    before = scores(store)
    assert rekey(store, present_key) == {"moved": 0, "current": 1, "kept": 1, "left": 0}
    assert scores(store) == before


def test_of_several_results_the_latest_that_was_computed_to_the_end_is_carried(store):
    (trial,) = make_trials(1)
    for number, status in enumerate(("finished", "finished", "dropped")):
        store.finish(Earlier(trial, f"old{number}"), result(trial, [number], status=status), PROVENANCE)
    before = scores(store)
    assert rekey(store, present_key) == {"moved": 1, "current": 0, "kept": 2, "left": 0}
    assert scores(store) == {"old0": before["old0"], trial.key: before["old1"], "old2": before["old2"]}


def test_a_failure_or_a_dropped_result_gives_way_to_one_that_was_computed_to_the_end(store):
    failed, dropped = make_trials(2)
    store.claim([failed], 1)
    store.fail(failed, "unlucky", {})
    store.finish(dropped, result(dropped, [1], status="dropped"), PROVENANCE)
    for number, trial in enumerate((failed, dropped)):
        store.finish(Earlier(trial, f"old{number}"), result(trial, [2]), PROVENANCE)
    assert rekey(store, present_key)["moved"] == 2
    assert {record.key: (record.status, record.error) for record in store.records()} == {
        failed.key: ("finished", None),
        dropped.key: ("finished", None),
    }


def test_a_job_that_is_running_is_not_taken_from_its_owner(store):
    (trial,) = make_trials(1)
    store.claim([trial], 1)
    store.finish(Earlier(trial, "old"), result(trial, [1]), PROVENANCE)
    assert rekey(store, present_key) == {"moved": 0, "current": 0, "kept": 1, "left": 0}
    assert {record.key: record.status for record in store.records()} == {trial.key: "running", "old": "finished"}


def test_a_result_whose_key_is_taken_does_not_keep_the_others(store):
    one, other = make_trials(2)
    for trial in (one, Earlier(one, "old0"), Earlier(other, "old1")):
        store.finish(trial, result(one, [1]), PROVENANCE)
    assert store.rekey({"old0": one.key, "old1": other.key}) == ["old1"]


def test_a_job_that_cannot_be_computed_keeps_its_key(store):
    one, other, third = make_trials(3)
    for number, trial in enumerate((one, other, third)):
        store.finish(Earlier(trial, f"old{number}"), result(trial, [1]), PROVENANCE)

    def key(trial: Trial) -> str | None:
        if trial == other:
            raise ArchlabError("its layer is gone")
        return None if trial == third else trial.key

    assert rekey(store, key) == {"moved": 1, "current": 0, "kept": 0, "left": 2}
    assert set(scores(store)) == {one.key, "old1", "old2"}


def test_an_error_leaves_every_key_as_it_was(store, monkeypatch):
    trials = make_trials(2)
    for number, trial in enumerate(trials):
        store.finish(Earlier(trial, f"old{number}"), result(trial, [1]), PROVENANCE)

    def key(trial: Trial) -> str:
        return trials[0].key if trial == trials[0] else 1j  # which no column holds

    with pytest.raises(Exception, match="complex"):
        rekey(store, key)
    assert set(scores(store)) == {"old0", "old1"}


@pytest.mark.parametrize(("name", "moved", "left"), [("smoke.db", 36, 0), ("lost.db", 2, 2), ("lm.db", 6, 0)])
def test_stores_of_an_earlier_archlab_are_carried_over(tmp_path, name, moved, left):
    path = shutil.copy(FIXTURES / name, tmp_path)
    assert stores.rekey_store(path) == {"moved": moved, "current": 0, "kept": 0, "left": left}
    assert stores.rekey_store(path) == {"moved": 0, "current": moved, "kept": 0, "left": left}
    check = stores.check_store(path)
    assert sum(table["of the present code"] for table in check.tables) == moved
