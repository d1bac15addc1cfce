"""Trainings of language models in the store: beside trials, kept, claimed and taken over as those are."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from tests.fake_training import make_trials
from tests.synthetic_records import result

from archlab.mad.store import Store
from archlab.scaling.store import LanguageModelStore


@dataclass(frozen=True)
class Run:
    key: str
    name: str = "?"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archlab.db"


def test_a_result_comes_back_as_it_was_infinities_included(path):
    with LanguageModelStore(path) as store:
        (run,) = store.claim([Run("a")], 1)
        store.finish(run, {"status": "diverged", "curve": [[1, math.inf]]}, {"host": "here"})
    with LanguageModelStore(path, create=False) as store:
        (record,) = store.records()
        assert store.claim([run], 1) == []
    assert (record.key, record.run, record.status, record.provenance) == ("a", {"name": "?"}, "diverged", {"host": "here"})
    assert record.result == {"status": "diverged", "curve": [[1, math.inf]]}


def test_it_shares_its_file_with_trials(path):
    (trial,) = make_trials(1)
    with Store(path) as trials, LanguageModelStore(path) as runs:
        trials.finish(trial, result(trial, [1]), {})
        runs.claim([Run("a"), Run("b")], 1)
        trials.release()  # another owner's claims stay
        assert [record.status for record in trials.records()] == ["finished"]
        assert [record.status for record in runs.records()] == ["running"]
        runs.release()
        assert runs.records() == []


def test_a_store_from_before_there_were_any_is_read_and_completed(path):
    Store(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE language_models"))
    with LanguageModelStore(path, create=False) as store:
        assert store.records() == []
    assert not inspect(engine).has_table("language_models")
    with LanguageModelStore(path) as store:
        assert store.claim([Run("a")], 1) == [Run("a")]
    engine.dispose()


def test_a_result_may_be_described_anew(path):
    with LanguageModelStore(path) as store:
        for name in ("a", "b"):
            store.finish(Run(name), {"status": "finished"}, {})
        store.describe(Run("b", "renamed"))
        assert [(record.key, record.run["name"]) for record in store.records()] == [("a", "?"), ("b", "renamed")]
