"""Every store keeps the contract, on SQLite and on PostgreSQL."""

import pytest
from tests.fake_training import make_trials
from tests.scaling import synthetic_ladders
from tests.synthetic_records import result

from archlab.mad.store import TrialStore
from archlab.scaling.store import StudyStore
from archlab.testing.stores import StoreContract


class TestTrialStore(StoreContract):
    @classmethod
    def make(cls, location):
        return TrialStore(location)

    @classmethod
    def job(cls, number):
        (trial,) = make_trials(1, start=number)
        return trial

    @classmethod
    def result(cls, number):
        return result(cls.job(0), [0, number])


class TestStudyStore(StoreContract):
    @classmethod
    def make(cls, location):
        return StudyStore(location)

    @classmethod
    def job(cls, number):
        return synthetic_ladders.trial("a", 1e17, 1e6, 1e17 / 6e6, seed=number, corpus_hash="0")

    @classmethod
    def result(cls, number):
        return synthetic_ladders.result(float(number))


class TestTrialStoreOnPostgres(TestTrialStore):
    @pytest.fixture
    def location(self, postgres):
        return postgres


@pytest.mark.slow
class TestStudyStoreOnPostgres(TestStudyStore):
    @pytest.fixture
    def location(self, postgres):
        return postgres
