import sqlite3

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, inspect, text
from tests.fake_training import make_trials
from tests.synthetic_records import PROVENANCE, result

from archlab.errors import ArchlabError
from archlab.mad.store import TrialStore
from archlab.store import database, maintenance, schema
from archlab.store.maintenance import compact, info, migrate


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    return tmp_path / "archlab.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


def filled(place, number=3):
    trials = make_trials(number)
    with TrialStore(place) as store:
        for trial in trials:
            store.finish(trial, result(trial, [1, 2]), PROVENANCE)
    return trials


def test_facts_of_a_store(place):
    trials = filled(place)
    with TrialStore(place) as store:
        store.remember_run({"what": "one"})
        store.claim(make_trials(4), 9)
        found = info(place)
        store.release()
    assert found["database"].split()[0] in ("sqlite", "postgresql")
    assert (found["schema_version"], found["runs"], len(found["computing"])) == (schema.SCHEMA_VERSION, 1, 1)
    assert found["rows"]["trials"] == {"finished": len(trials), "running": 1}
    assert found["bytes"] > 10_000
    assert info(place)["computing"] == []


@pytest.fixture
def next_version(monkeypatch):
    """The schema of a later archlab: a column more in a table of results, and a table more."""
    later = MetaData()
    for table in schema.metadata.sorted_tables:
        columns = [column._copy() for column in table.columns]
        columns += [Column("attempts", Integer, nullable=True)] if table.name == "trials" else []
        Table(table.name, later, *columns)
    Table("notes", later, Column("id", Integer, primary_key=True))

    def count_attempts(connection):
        connection.execute(text("UPDATE trials SET attempts = 1"))

    for module in (maintenance, database):
        monkeypatch.setattr(module, "metadata", later)
        monkeypatch.setattr(module, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    monkeypatch.setattr(maintenance, "STEPS", {schema.SCHEMA_VERSION: count_attempts})


def test_a_store_of_the_version_before_is_refused_then_migrated(place, request, monkeypatch):
    trials = filled(place)
    request.getfixturevalue("next_version")
    with pytest.raises(ArchlabError, match=r"has schema version \d+, .*: `archlab store migrate --store .*` upgrades it"):
        TrialStore(place)
    assert migrate(place) == (schema.SCHEMA_VERSION, schema.SCHEMA_VERSION + 1)
    assert migrate(place) == (schema.SCHEMA_VERSION + 1,) * 2
    with TrialStore(place) as store:
        assert [record.job for record in store.records()] == trials
        with store._read() as connection:
            assert connection.scalar(text("SELECT sum(attempts) FROM trials")) == len(trials)
            assert inspect(connection).has_table("notes")
    monkeypatch.undo()
    with pytest.raises(ArchlabError, match="upgrade archlab"):
        migrate(place)


def test_a_migration_that_fails_leaves_the_store_as_it_was(place, request, monkeypatch):
    filled(place)
    request.getfixturevalue("next_version")

    def fail(connection):
        raise ArchlabError("a row that no step foresaw")

    monkeypatch.setattr(maintenance, "STEPS", {schema.SCHEMA_VERSION: fail})
    with pytest.raises(ArchlabError, match="no step foresaw"):
        migrate(place)
    assert info(place)["schema_version"] == schema.SCHEMA_VERSION
    monkeypatch.undo()
    with TrialStore(place) as store:
        assert len(store.records()) == 3


def test_space_is_given_back_once_nobody_computes(place):
    trials = filled(place, 60)
    with TrialStore(place) as store:
        store.delete([trial.key for trial in trials[:59]])
        store.claim(trials, 1)
        with pytest.raises(ArchlabError, match=r"process \d+ of .* computes with it: let it end first"):
            compact(place)
        store.release()
    before, after = compact(place)
    assert after < before
    with TrialStore(place) as store:
        assert [record.job for record in store.records()] == trials[59:]


@pytest.mark.parametrize("version", ["x", b"\xff", "9" * 5000])
def test_a_damaged_version_is_named(tmp_path, version):
    filled(tmp_path / "archlab.db")
    with sqlite3.connect(tmp_path / "archlab.db") as connection:
        connection.execute("UPDATE meta SET value = ?", (version,))
    connection.close()
    with pytest.raises(ArchlabError, match=r"^the store is damaged \(schema version "):
        info(tmp_path / "archlab.db")
