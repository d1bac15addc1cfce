"""A store that is deleted, moved or damaged while it is used: noticed, named in one line, and the rest is shown."""

import os
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest
from tests.fake_training import LoggedTraining, make_trials, threads
from tests.scaling.synthetic_ladders import SMALL, fill, ladder
from tests.synthetic_records import PROVENANCE, result

from archlab.errors import ArchlabError
from archlab.jobs import running, scheduler
from archlab.jobs.events import JobFinished, JobStarted, ResultsDamaged
from archlab.mad.store import TrialStore
from archlab.scaling.store import StudyStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archlab.db"


@pytest.fixture
def train(tmp_path):
    return LoggedTraining(tmp_path / "log", seconds=0.01)


def remove(path):
    path.unlink()


def move(path):
    path.rename(path.with_name("moved.db"))


def replace(path):
    shutil.copy(path, path.with_name("copy.db"))
    os.replace(path.with_name("copy.db"), path)


@pytest.mark.parametrize("lose", [remove, move, replace])
def test_a_run_whose_store_is_gone_ends_with_one_line(path, tmp_path, lose):
    started = []

    def lose_the_store(event):
        if isinstance(event, JobStarted) and not started:
            started.append(event)
            lose(path)

    gone = pytest.raises(ArchlabError, match=r"archlab.db: the file was deleted or moved while it was in use")
    with TrialStore(path) as store, threads(LoggedTraining(tmp_path / "log"), 1) as executor, gone:
        scheduler.run(make_trials(3), store, executor, listeners=[lose_the_store])


def test_a_store_that_is_gone_is_noticed_within_a_heartbeat_of_a_long_job(path, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "HEARTBEAT_SECONDS", 0.1)
    ends = threading.Event()

    def train(trial, on_progress, thresholds):
        path.unlink(missing_ok=True)
        ends.wait(20)
        return result(trial, [1])

    finished = []
    with TrialStore(path) as store, threads(train, 1) as executor:
        executor.shutdown = lambda grace=0.0: ends.set()
        with pytest.raises(ArchlabError, match="deleted or moved"):
            scheduler.run(make_trials(1), store, executor, listeners=[lambda e: finished.append(isinstance(e, JobFinished))])
    assert not any(finished)


DEEP = "[" * 5000
DAMAGE = {
    "key": [b"\xff\xfe\x00"],
    "status": ["garbage", b"\xff", 5],
    "error": [b"\xff\xfe\x00"],
    "trial": ["not json", "null", "[]", "{}", '"text"', '{"architecture": 3}', DEEP, b"\xff"],
    "numbers": ["$.steps", "$.solved_step", "$.curve[0].step", "$.selected.accuracy", "$.cpu_seconds", "$.test.loss"],
    "result": ["{", "[]", "{}", '{"status": "finished"}', "3", DEEP, b"\xff"],
    "numerators": [b"", b"not zlib", None],
    "provenance": [
        "not json",
        "[]",
        "3",
        '{"finished": 3}',
        '{"host": []}',
        '{"costs": {"flops": "x"}}',
        '{"costs": 1}',
        DEEP,
        b"\xff",
    ],
}


@pytest.mark.parametrize(("column", "value"), [(column, value) for column, values in DAMAGE.items() for value in values])
def test_a_damaged_row_is_named_and_the_rest_is_shown(path, column, value):
    trials = make_trials(2)
    with TrialStore(path) as store:
        for trial in trials:
            store.finish(trial, result(trial, [1, 2]), PROVENANCE)
        with sqlite3.connect(path) as connection:
            change = "result = json_set(result, ?, 'x')" if column == "numbers" else f"{column} = ?"
            connection.execute(f"UPDATE trials SET {change} WHERE key = ?", (value, trials[0].key))
        connection.close()
        unreadable = {}
        records = store.records(unreadable=unreadable)
        assert [record.job for record in records] == [trials[1]]
        (line,) = unreadable.values()
        assert "\n" not in line
        assert len(line) < 800
        key = value if column == "key" else trials[0].key
        assert f"store {path}: trial {key} cannot be read: " in line
        assert line.endswith("; `archlab store check --delete` removes it")
        with pytest.raises(ArchlabError, match=r"cannot be read"):
            store.records()
        if column == "status":
            named = {}
            assert [record.job for record in store.records(statuses=["finished"], unreadable=named)] == [trials[1]]
            assert named == unreadable
        if column != "numerators" and "curve" not in str(value):  # which outcomes leave out
            assert [record.job for record in store.outcomes(unreadable={})] == [trials[1]]
        assert store.delete_unreadable(unreadable) == 1
        assert [record.job for record in store.records()] == [trials[1]]


def test_text_that_is_not_utf_8_is_read(path):
    (trial,) = make_trials(1)
    with TrialStore(path) as store:
        store.finish(trial, result(trial, [1, 2]), PROVENANCE)
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE trials SET error = CAST(x'61ff' AS TEXT)")
        connection.close()
        assert [record.error for record in store.records()] == ["a\ufffd"]


LOST = [("trial", "not json"), ("result", "{"), ("result", "{}"), ("result", None), ("status", b"?")]


@pytest.mark.parametrize(("column", "value"), LOST)
def test_a_damaged_result_is_computed_again(path, train, column, value):
    trials, told = make_trials(2), []
    with TrialStore(path) as store, threads(train, 1) as executor:
        scheduler.run(trials, store, executor)
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE trials SET {column} = ? WHERE key = ?", (value, trials[0].key))
        connection.close()
        summary = scheduler.run(trials, store, executor, listeners=[told.append])
        assert (summary.computed, summary.reused) == (1, 1)
        (damaged,) = [event.reasons for event in told if isinstance(event, ResultsDamaged)]
        assert list(damaged) == [trials[0].key]
        assert [record.status for record in store.records()] == ["finished", "finished"]


def test_runs_of_before_runs_had_a_kind_are_the_benchmarks(path):
    with TrialStore(path) as store, StudyStore(path) as studies:
        with sqlite3.connect(path) as connection:
            connection.execute("""INSERT INTO runs (plan) VALUES ('{"protocol": "smoke"}')""")
        connection.close()
        number = store.remember_run({"protocol": "quick"})
        assert [(run.number, run.label, run.started) for run in store.runs()][:1] == [(1, "", None)]
        assert [run.plan["protocol"] for run in store.runs()] == ["smoke", "quick"]
        assert store.runs()[1].number == number
        assert studies.runs() == []


PLANS = {
    DEEP: "plan='[[[",
    "[]": "plan",
    '{"kind": 3}': "kind",
    '{"protocol": "smoke"}': "it is damaged (KeyError: 'seeds')",
}


@pytest.mark.parametrize(("plan", "reason"), PLANS.items(), ids=list("abcd"))
def test_a_damaged_run_is_named_and_the_rest_is_shown(path, plan, reason):
    def seeds(note):
        return note["seeds"]

    with TrialStore(path) as store:
        store.remember_run({"seeds": 3})
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO runs (plan) VALUES (?)", (plan,))
        connection.close()
        with pytest.raises(ArchlabError) as refused:
            store.runs(seeds)
        unreadable = {}
        assert [run.plan for run in store.runs(seeds, unreadable=unreadable)] == [3]
    assert unreadable == {"run 2": str(refused.value)}
    assert str(refused.value).startswith(f"store {path}: run 2 cannot be read: {reason}")


def test_a_discarded_result_failed_for_the_reason_given_and_a_running_job_is_left_alone(path):
    done, running = make_trials(2)
    with TrialStore(path) as store:
        store.finish(done, result(done, [1]), PROVENANCE)
        store.claim([running], 1)
        store.discard({done.key: "damaged", running.key: "damaged"})
        records = {record.job: (record.status, record.error, record.result) for record in store.records()}
    assert records == {done: ("failed", "damaged", None), running: ("running", None, None)}


def test_damaged_outcomes_of_language_models_are_named(path):
    fill(path, ladder("good", SMALL)[:2])
    with StudyStore(path) as store:
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE {store.table.name} SET result = '{{' WHERE id = 1")
        connection.close()
        unreadable = {}
        assert len(store.outcomes(unreadable=unreadable)) == len(unreadable) == 1


def test_a_flipped_digit_of_a_result_is_named_by_every_reader(path):
    trials = make_trials(2)
    with TrialStore(path) as store:
        for trial in trials:
            store.finish(trial, result(trial, [1, 2]), PROVENANCE)
        with closing(sqlite3.connect(path)) as connection, connection:
            (text,) = connection.execute("SELECT result FROM trials WHERE id = 1").fetchone()
            at = text.index('"loss": ') + len('"loss": ')
            flipped = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
            connection.execute("UPDATE trials SET result = ? WHERE id = 1", [flipped])
        for read in (store.records, store.outcomes):
            unreadable: dict[str, str] = {}
            assert [record.key for record in read(unreadable=unreadable)] == [trials[1].key]
            assert "it is damaged (it is not as it was written: the checksum differs)" in unreadable[trials[0].key]


def test_a_flipped_digit_of_a_language_models_result_is_named(path):
    fill(path, ladder("good", SMALL)[:2])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE language_models SET result = replace(result, '\"loss\": ', '\"loss\": 1')")
    with StudyStore(path) as store:
        unreadable: dict[str, str] = {}
        assert (store.records(unreadable=unreadable), len(unreadable)) == ([], 2)


def test_an_owner_whose_heartbeat_is_damaged_is_dead(path):
    (trial,) = make_trials(1)
    with TrialStore(path) as store, TrialStore(path) as other:
        assert store.claim([trial], 1) == [trial]
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE owners SET heartbeat = x'ff', machine = 'elsewhere'")
        connection.close()
        assert other.claim([trial], 1) == [trial]


def test_a_closed_store_is_not_read_any_more(path):
    with TrialStore(path) as store:
        assert store.records() == []
    for read in (store.records, store.runs):
        with pytest.raises(ArchlabError, match="is closed: open it again"):
            read()
