"""A short form of `make faults`."""

import pytest
from benchmarks.faults import campaign


@pytest.mark.slow
def test_a_few_faults_lose_and_double_nothing():
    faults, wrong = campaign(3, ["work, SQLite"])
    assert faults.total() == 3
    assert wrong["work, SQLite"].total() == 0


@pytest.mark.slow
def test_faults_on_a_server_lose_and_double_nothing(server):
    faults, wrong = campaign(16, ["run, PostgreSQL", "work, PostgreSQL"])
    assert faults.total() == 16
    assert not any(counts.total() for counts in wrong.values())
