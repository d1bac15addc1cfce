"""Training runs of language models in the store: beside trials, kept, claimed and taken over as those are."""

import math
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import create_engine, inspect, text
from tests.fake_training import make_trials
from tests.scaling.synthetic_ladders import SMALL, fill, ladder, trial
from tests.scaling.synthetic_ladders import result as lm_result
from tests.synthetic_records import result

import archlab
from archlab.errors import ArchlabError
from archlab.mad.store import TrialStore
from archlab.scaling.store import StudyStore

ONE, OTHER = (trial("a", 1e17, size, 1e17 / 6 / size, corpus_hash="0") for size in (1e6, 2e6))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archlab.db"


def test_a_result_comes_back_as_it_was_infinities_included(path):
    diverged = lm_result(None)
    diverged = replace(diverged, curve=(replace(diverged.curve[0], train_loss=math.inf), *diverged.curve[1:]))
    with StudyStore(path) as store:
        (run,) = store.claim([ONE], 1)
        store.finish(run, diverged, {"host": "here"})
    with StudyStore(path, create=False) as store:
        (record,) = store.records()
        assert store.claim([run], 1) == []
    assert (record.key, record.job, record.status, record.provenance["host"]) == (ONE.key, ONE, "diverged", "here")
    assert record.result == diverged


def test_it_shares_its_file_with_trials(path):
    (mad,) = make_trials(1)
    with TrialStore(path) as trials, StudyStore(path) as runs:
        trials.finish(mad, result(mad, [1]), {})
        runs.claim([ONE, OTHER], 1)
        trials.release()  # another owner's claims stay
        assert [record.status for record in trials.records()] == ["finished"]
        assert [record.status for record in runs.records()] == ["running"]
        runs.release()
        assert runs.records() == []


def test_runs_are_remembered_by_kind(path):
    with TrialStore(path) as trials, StudyStore(path) as studies:
        first = trials.remember_run({"protocol": "smoke"}, label="wide")
        second = studies.remember_run({"runs": []})
        assert [(run.number, run.label, run.plan["protocol"]) for run in trials.runs()] == [(first, "wide", "smoke")]
        assert [(run.number, run.label, run.plan["runs"]) for run in studies.runs()] == [(second, "", [])]


def test_a_store_from_before_there_were_any_is_read_and_completed(path):
    TrialStore(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE language_models"))
    with StudyStore(path, create=False) as store:
        assert store.records() == []
    assert not inspect(engine).has_table("language_models")
    with StudyStore(path) as store:
        assert store.claim([ONE], 1) == [ONE]
    engine.dispose()


def test_a_result_may_be_described_anew(path):
    with StudyStore(path) as store:
        for one in (ONE, OTHER):
            store.finish(one, lm_result(2.0), {})
        store.describe(replace(OTHER, run=replace(OTHER.run, convention="6nd")))
        assert [record.job.run.convention for record in store.records()] == [ONE.run.convention, "6nd"]


def test_the_modules_that_stored_specs_name_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "module_of_another.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "archlab.db"
    fill(path, ladder("good", SMALL)[:1])
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("UPDATE language_models SET run = json_set(run, '$.run.spec', 'module_of_another.Layer swiglu')")
    with StudyStore(path) as store:
        (record,) = store.records()
    with pytest.raises(ArchlabError, match="module_of_another is not imported; name its file by --layers"):
        record.job.run.architecture.num_params(dim=16, length=16, vocab_size=8)
    assert archlab.check_store(path).tables
    assert archlab.rekey_store(path)["left"] == 1
    assert "module_of_another" not in sys.modules
