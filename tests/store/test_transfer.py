"""Stores are merged: results are copied once, what is there stays, claims are not copied."""

import sqlite3

import pytest
from tests.fake_training import make_trials
from tests.scaling.synthetic_ladders import result as lm_result
from tests.scaling.synthetic_ladders import trial
from tests.synthetic_records import PROVENANCE, result

from archlab.errors import ArchlabError
from archlab.mad.store import TrialStore
from archlab.scaling.store import StudyStore
from archlab.store.transfer import merge


@pytest.fixture
def stores(tmp_path):
    return tmp_path / "source.db", tmp_path / "target.db"


def test_results_and_runs_are_copied_and_nothing_twice(stores):
    source, target = stores
    trials, run = make_trials(4), trial("a", 1e17, 1e6, 1e11 / 6, corpus_hash="0")
    with TrialStore(source) as store, StudyStore(source) as studies:
        store.remember_run({"protocol": "p"}, label="theirs")
        store.finish(trials[0], result(trials[0], [1]), PROVENANCE)
        store.finish(trials[1], result(trials[1], [1], status="diverged"), PROVENANCE)
        store.claim(trials[2:3], 1)
        studies.finish(run, lm_result(2.0), {})
        assert merge([source], target) == {"trials": 2, "language_models": 1, "imported_runs": 0, "runs": 1, "left": 0}
    assert merge([source], target) == {"trials": 0, "language_models": 0, "imported_runs": 0, "runs": 0, "left": 0}
    with TrialStore(target, create=False) as store, StudyStore(target, create=False) as studies:
        assert [(record.job, record.status) for record in store.records()] == [(trials[0], "finished"), (trials[1], "diverged")]
        assert store.records()[0].result.to_dict() == result(trials[0], [1]).to_dict()
        assert [record.result for record in studies.records()] == [lm_result(2.0)]
        assert [one.label for one in store.runs()] == ["theirs"]


def test_a_result_that_is_there_stays_and_a_failure_gives_way(stores):
    source, target = stores
    trials = make_trials(2)
    with TrialStore(source) as theirs, TrialStore(target) as ours:
        for one in trials:
            theirs.finish(one, result(one, [4]), {"host": "theirs"})
        ours.finish(trials[0], result(trials[0], [1]), {"host": "ours"})
        ours.claim(trials[1:], 1)
        ours.fail(trials[1], "unlucky", {})
        assert merge([source], target)["trials"] == 1
        assert [(record.provenance["host"], record.error) for record in ours.records(keys=[one.key for one in trials])] == [
            ("ours", None),
            ("theirs", None),
        ]


@pytest.mark.parametrize(
    "damage",
    [
        "result = replace(result, '0.', '1.')",
        "trial = x'ff'",
        "trial = '{'",
        "result = '[]'",
        "status = '?'",
        "key = x'ff'",
        "error = x'ff'",
        "provenance = x'ff'",
    ],
)
def test_damaged_rows_are_left_and_the_rest_is_copied(stores, damage):
    source, target = stores
    trials = make_trials(3)
    with TrialStore(source) as store:
        store.remember_run({"protocol": "p"})
        for one in trials:
            store.finish(one, result(one, [1]), PROVENANCE)
        with sqlite3.connect(source) as connection:
            connection.execute(f"UPDATE trials SET {damage} WHERE id = 1")
            connection.execute("INSERT INTO runs (plan) VALUES (x'ff')")
        connection.close()
    assert merge([source], target) == {"trials": 2, "language_models": 0, "imported_runs": 0, "runs": 1, "left": 2}
    with TrialStore(target, create=False) as store:
        assert [record.job for record in store.records()] == trials[1:]


def test_a_source_that_is_no_store_leaves_no_target(stores):
    source, target = stores
    with pytest.raises(ArchlabError, match="does not exist"):
        merge([source], target)
    assert not target.exists()


def test_a_source_that_cannot_be_read_leaves_everything_as_it_is(stores, tmp_path):
    source, target = stores
    (trial,) = make_trials(1)
    with TrialStore(source) as store:
        store.finish(trial, result(trial, [1]), PROVENANCE)
    with pytest.raises(ArchlabError, match="does not exist"):
        merge([source, tmp_path / "none.db"], target)
    assert not target.exists()
