import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sqlalchemy import event, update
from tests.fake_training import make_trials
from tests.synthetic_records import PROVENANCE, result

from archlab.architectures import architecture
from archlab.mad.recipe import Recipe
from archlab.mad.store import TrialStore
from archlab.mad.trial import CurvePoint, Details, Metrics, Trial, TrialResult
from archlab.store import ledger
from archlab.store.owner import LEASE_SECONDS, Owner
from archlab.store.record import RACED
from archlab.tasks import setting


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archlab.db"


@pytest.fixture
def store(path):
    with TrialStore(path) as opened:
        yield opened


def another_process() -> Owner:
    """An owner on this machine whose process is dead."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        return replace(Owner.of_this_process(), pid=process.pid, process_started="")


# What is written can be read


def test_a_new_store_has_no_records(store):
    assert store.records() == []
    assert store.records(keys=["0" * 32]) == []


def test_a_finished_trial_is_there_in_another_connection(store, path):
    (trial,) = make_trials(1)
    store.claim([trial], 1)
    store.finish(trial, result(trial, [1, 2, 3]), PROVENANCE)
    with TrialStore(path, create=False) as other:
        (record,) = other.records()
    assert (record.key, record.job, record.status, record.error) == (trial.key, trial, "finished", None)
    assert record.provenance.pop("checksum") > 0
    assert record.provenance == PROVENANCE | {"costs": asdict(trial.costs)}
    assert record.result.to_dict() == result(trial, [1, 2, 3]).to_dict()
    assert record.result.score == 0.5


def test_records_come_in_the_order_of_the_keys_and_by_status(store):
    trials = make_trials(700)  # more than the keys of one statement
    store.claim(trials, 3)
    store.finish(trials[0], result(trials[0], [1]), {})
    store.finish(trials[1], result(trials[1], [1], status="diverged"), {})
    keys = [trial.key for trial in reversed(trials)]
    assert [record.job.seed for record in store.records(keys)] == [2, 1, 0]
    assert [record.job.seed for record in store.records(keys, statuses=("finished", "diverged"))] == [1, 0]
    assert [(record.status, record.result) for record in store.records(statuses=("running",))] == [("running", None)]
    assert [record.job.seed for record in store.records()] == [0, 1, 2]


def test_stored_json_is_standard(store, path):
    (trial,) = make_trials(1)
    nan = Metrics(0.25, math.nan, math.inf)
    store.finish(trial, replace(result(trial, [1]), test_last=nan, curve=(CurvePoint(1, -math.inf, nan),)), PROVENANCE)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    with sqlite3.connect(path) as connection:
        (columns,) = connection.execute("SELECT trial, provenance, result FROM trials").fetchall()
    for column in columns:
        json.loads(column, parse_constant=refuse)
    (record,) = store.records()
    assert record.result.test_last.loss == math.inf
    assert math.isnan(record.result.test_last.macro_accuracy)
    assert record.result.curve[0].train_loss == -math.inf


def test_four_hundred_trials_stay_small(store, path):
    rng = np.random.default_rng(0)
    for trial in make_trials(40):
        curve = [(step, float(rng.random())) for step in range(20)]
        store.finish(trial, result(trial, rng.integers(0, 33, 1280).tolist(), curve=curve), PROVENANCE)
    store.close()
    assert path.stat().st_size < 40 * 12_000


any_float = st.floats(allow_nan=False)
metrics = st.builds(Metrics, any_float, any_float, any_float)
float32s = hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=False))
results = st.builds(
    TrialResult,
    status=st.sampled_from(["finished", "diverged"]),
    steps=st.integers(0, 10**9),
    solved_step=st.none() | st.integers(0, 10**9),
    selected_step=st.integers(0, 10**9),
    selected=metrics,
    test=metrics,
    test_last=metrics,
    curve=st.lists(st.builds(CurvePoint, st.integers(0, 10**9), any_float, metrics), max_size=4).map(tuple),
    numerators=float32s,
    denominators=float32s,
    examples_per_second=any_float,
    wall_seconds=any_float,
    cpu_seconds=any_float,
)
some_trials = st.builds(
    Trial,
    architecture=st.sampled_from(["mlp", "attention swiglu", "2*[mh-attention(heads=4) mlp]"]).map(architecture),
    setting=st.builds(
        lambda vocab_size, length: setting("compression", vocab_size=vocab_size, length=length),
        st.integers(3, 500),
        st.integers(2, 500),
    ),
    recipe=st.builds(
        Recipe,
        steps=st.integers(0, 10**6),
        warmup=st.floats(0, 0.9),
        beta2=st.floats(0, 0.9999),
        schedule=st.sampled_from(["cosine", "constant"]),
        decay_all=st.booleans(),
    ),
    dim=st.sampled_from([64, 128]),
    learning_rate=st.floats(1e-300, 1e300),
    weight_decay=st.floats(0, 1e300),
    seed=st.integers(0, 2**63),
    device=st.sampled_from(["cpu", "cuda"]),
)


@given(some_trials, results)
@settings(max_examples=60, deadline=None)
def test_any_trial_and_result_come_back_as_they_were(tmp_path_factory, trial, outcome):
    with TrialStore(tmp_path_factory.getbasetemp() / "round-trip.db") as store:
        store.finish(trial, outcome, {})
        (record,) = store.records(keys=[trial.key])
        assert record.job == trial
        # So do its parts, which are read apart.
        unreadable: dict[str, str] = {}
        (part,) = store.outcomes(keys=[trial.key])
        details, whole = store.details([part], unreadable=unreadable)[trial.key], Details.of(trial, record.result)
        assert (part.job, part.job.key, unreadable) == (trial, trial.key, {})
        for name in ("status", "steps", "solved_step", "selected", "test", "score", "wall_seconds", "cpu_seconds", "program"):
            assert repr(getattr(part.result, name)) == repr(getattr(record.result, name))
        assert repr((details.curve, details.by_length)) == repr((whole.curve, whole.by_length))
        assert np.array_equal(details.numerators, record.result.numerators, equal_nan=True)
        assert np.array_equal(details.denominators, record.result.denominators, equal_nan=True)
        # The first result of a key stays, so this one's own way to columns and back is looked at apart.
        columns = store.result_columns(outcome)
        assert columns.pop("status") == outcome.status
        columns["result"] = json.loads(json.dumps(columns["result"], allow_nan=False))
        again = store.read_result(SimpleNamespace(**columns))
    assert again.to_dict() == outcome.to_dict()
    assert again.numerators.dtype == again.denominators.dtype == np.float32


# Large stores


@pytest.fixture
def statements(store):
    """The SELECTs that the store executes, as they come."""
    found: list[str] = []
    event.listen(store._engine, "before_cursor_execute", lambda *arguments: found.append(arguments[2]))
    return found


def test_what_trials_have_in_common_is_read_once_and_kept_once(store, monkeypatch):
    trials = make_trials(40)
    for number, trial in enumerate(trials):
        times = {"started": f"2026-01-01T00:{number:02}", "finished": f"2026-01-01T01:{number:02}", "wall_seconds": 60.0 + number}
        store.finish(trial, result(trial, [number]), PROVENANCE | times)
    read, parse = [], Trial.from_dict
    monkeypatch.setattr(Trial, "from_dict", lambda *arguments: read.append(0) or parse(*arguments))
    records = store.outcomes()
    assert len(read) == 1, "trials that differ in their seeds"
    assert [record.job for record in records] == trials
    for name in ("setting", "recipe", "architecture"):
        assert len({id(getattr(record.job, name)) for record in records}) == 1
    assert len({id(record.provenance) for record in records}) == 1
    assert [record.finished[-2:] for record in records] == [f"{number:02}" for number in range(40)]
    assert not any(hasattr(record.result, "curve") or hasattr(record.result, "numerators") for record in records)


def test_statements_grow_with_parts_of_a_store_not_with_its_trials(store, statements, monkeypatch):
    monkeypatch.setattr(ledger, "_CHUNK", 10)
    trials = make_trials(40)
    for trial in trials:
        store.finish(trial, result(trial, [1]), {})
    keys = [trial.key for trial in trials]
    for read in (store.outcomes, store.records, lambda: store.outcomes(keys), lambda: store.records(keys)):
        statements.clear()
        assert [record.job for record in read()] == trials
        assert len([one for one in statements if "FROM trials" in one and "min(" not in one]) == 4


def test_records_are_scanned_without_keeping_them(store, statements, monkeypatch):
    monkeypatch.setattr(ledger, "_CHUNK", 10)
    trials = make_trials(40)
    for trial in trials:
        store.finish(trial, result(trial, [1]), {})
    statements.clear()
    scanned = store.scan(unreadable={})
    assert next(scanned).job == trials[0]
    assert len([one for one in statements if "FROM trials" in one and "min(" not in one]) == 1
    assert [record.job for record in scanned] == trials[1:]
    with store._write() as connection:
        connection.execute(update(store.table).where(store.table.c.key == trials[20].key).values(status="lost"))
    unreadable = {}
    assert [record.job for record in store.scan(unreadable=unreadable)] == trials[:20] + trials[21:]
    assert [*unreadable] == [trials[20].key]


@pytest.mark.parametrize(("right", "size"), [([3, 255], 1), ([3, 256], 4), ([0.5, 2], 4), ([-1, 2], 4), ([math.nan, 2], 4)])
def test_small_numbers_of_answers_take_a_byte_each(store, right, size):
    (trial,) = make_trials(1)
    store.finish(trial, result(trial, right), {})
    details = store.details(store.outcomes(), unreadable={})[trial.key]
    assert details.numerators.itemsize == size
    assert np.array_equal(details.numerators, np.float32(right), equal_nan=True)


def test_databases_may_sort_the_names_in_json(store, path):
    trials = make_trials(3)
    for trial in trials:
        store.finish(trial, result(trial, [1, 0], selected=math.nan), PROVENANCE)
    before = store.outcomes(), store.details(store.outcomes(), unreadable={})
    with sqlite3.connect(path) as connection:
        for column in ("trial", "result", "provenance"):
            for key, text in connection.execute(f"SELECT key, {column} FROM trials").fetchall():
                sorted_names = json.dumps(json.loads(text), sort_keys=True)
                connection.execute(f"UPDATE trials SET {column} = ? WHERE key = ?", (sorted_names, key))
    connection.close()
    records = store.outcomes()
    for one, other in zip(records, before[0], strict=True):
        for value in ("status", "steps", "solved_step", "selected", "test", "score", "wall_seconds", "cpu_seconds", "program"):
            assert repr(getattr(one.result, value)) == repr(getattr(other.result, value))
        assert (one.job, one.finished) == (other.job, other.finished)
    details = store.details(records, unreadable={})
    assert {key: found.curve for key, found in details.items()} == {key: found.curve for key, found in before[1].items()}


@pytest.mark.parametrize("column", ["trial", "result"])
def test_text_that_is_no_json_is_named(store, path, column):
    trials = make_trials(40)
    for trial in trials:
        store.finish(trial, result(trial, [1]), {})
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE trials SET {column} = '{{' WHERE key = ?", (trials[15].key,))
    connection.close()
    for keys in (None, [trial.key for trial in trials]):
        unreadable: dict[str, str] = {}
        records = store.outcomes(keys, unreadable=unreadable)
        assert [record.job for record in records] == trials[:15] + trials[16:]
        assert list(unreadable) == [trials[15].key]
    if column == "result":
        details = store.details([*records[:3], replace(records[3], key=trials[15].key)], unreadable=unreadable)
        assert list(details) == [trial.key for trial in trials[:3]]


# Claims


def test_claims_come_in_the_given_order_up_to_the_limit(store):
    trials = make_trials(5)
    backwards = trials[::-1]
    assert store.claim(backwards, 2) == backwards[:2]
    assert store.claim(backwards, 2) == backwards[2:4]
    assert store.claim(backwards, 0) == []
    assert store.claim(backwards, 9) == backwards[4:]
    assert store.claim(backwards, 9) == []


def test_a_claimed_trial_is_no_one_elses(store, path):
    trials = make_trials(3)
    store.claim(trials, 2)
    with TrialStore(path) as other:
        assert other.claim(trials, 9) == trials[2:]


def test_a_trial_with_a_result_is_never_claimed_again(store):
    trials = make_trials(2)
    store.claim(trials, 2)
    store.finish(trials[0], result(trials[0], [1]), {})
    store.finish(trials[1], result(trials[1], [1], status="diverged"), {})
    assert store.claim(trials, 9) == []


def test_a_dropped_trial_is_claimed_by_those_that_are_not_through_with_it(store):
    (trial,) = make_trials(1)
    store.finish(trial, result(trial, [1], status="dropped"), {})
    assert store.claim([trial], 1, RACED) == []
    assert store.claim([trial], 1) == [trial]
    store.finish(trial, result(trial, [1, 2]), {})
    (found,) = store.records()
    assert (found.status, found.result.status) == ("finished", "finished")
    assert store.claim([trial], 1) == []


def test_a_failed_trial_says_why_and_can_be_claimed(store):
    (trial,) = make_trials(1)
    store.claim([trial], 1)
    store.fail(trial, "ValueError: a \0 and a \ud800\nthe traceback", PROVENANCE)
    (record,) = store.records()
    assert (record.status, record.error, record.result) == ("failed", "ValueError: a ? and a ?\nthe traceback", None)
    assert record.provenance == PROVENANCE
    assert store.claim([trial], 1) == [trial]
    store.finish(trial, result(trial, [1]), {})
    (record,) = store.records()
    assert (record.status, record.error) == ("finished", None)


def test_release_leaves_what_was_there_before(store, path):
    trials = make_trials(3)
    store.claim(trials, 2)
    store.fail(trials[0], "it was late", {})
    store.finish(trials[1], result(trials[1], [1]), {})
    assert store.claim(trials, 9) == [trials[0], trials[2]]
    with TrialStore(path) as other:
        other.release()  # someone else's claims stay
    assert len(store.records(statuses=["running"])) == 2
    store.release()
    assert [(record.job.seed, record.status, record.error) for record in store.records()] == [
        (0, "failed", "it was late"),
        (1, "finished", None),
    ]


def test_many_claim_at_once_and_none_gets_what_another_has(path):
    trials = make_trials(60)
    shares: list[list[Trial]] = []

    def claim_all() -> None:
        mine = []
        with TrialStore(path) as store:
            while taken := store.claim(trials, 2):
                mine += taken
        shares.append(mine)

    threads = [threading.Thread(target=claim_all) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trial.seed for share in shares for trial in share) == list(range(60))


def test_what_a_dead_process_held_can_be_claimed_at_once(store, path):
    trials = make_trials(2)
    with TrialStore(path, owner=another_process()) as dead:
        dead.claim(trials, 1)
    assert store.claim(trials, 9) == trials


def test_a_later_process_with_the_same_id_is_not_the_owner(store, path):
    (trial,) = make_trials(1)
    with TrialStore(path, owner=replace(Owner.of_this_process(), process_started="long ago", id="before")) as before:
        before.claim([trial], 1)
    assert store.claim([trial], 1) == [trial]


def test_an_owner_elsewhere_is_dead_when_its_lease_has_run_out(store, path):
    (trial,) = make_trials(1)
    with TrialStore(path, owner=replace(another_process(), machine="elsewhere")) as far:
        far.claim([trial], 1)
        assert store.claim([trial], 1) == []
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE owners SET heartbeat = heartbeat - ?", (LEASE_SECONDS - 5,))
        assert store.claim([trial], 1) == []
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE owners SET heartbeat = heartbeat - 10 WHERE machine = 'elsewhere'")
        assert store.claim([trial], 1) == [trial]
        # It was only slow, and both finish: the first result stays, and is the only one.
        far.finish(trial, result(trial, [1, 1]), {"host": "far"})
        store.finish(trial, result(trial, [1, 1]), {"host": "near"})
        far.fail(trial, "too late", {})
    (record,) = store.records()
    assert (record.status, record.provenance["host"]) == ("finished", "far")


def test_a_result_is_kept_though_its_claim_was_taken_and_given_back(store, path):
    (trial,) = make_trials(1)
    with TrialStore(path, owner=another_process()) as slow:
        slow.claim([trial], 1)
        store.claim([trial], 1)
        store.release()
        slow.finish(trial, result(trial, [1]), {})
    assert [record.status for record in store.records()] == ["finished"]


def test_importing_the_package_loads_neither_sqlalchemy_nor_torch():
    code = "import sys, archlab.jobs.executor; print([m for m in ('sqlalchemy', 'torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_a_trial_of_a_module_that_a_store_names_is_read_without_importing_it(store, path, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "named_by_a_store.py").write_text("raise SystemExit('imported')")
    (trial,) = make_trials(1)
    store.finish(trial, result(trial, [1]), {})
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trials SET trial = json_set(trial, '$.architecture', 'named_by_a_store.Layer(mode=a.b)')")
    (record,) = store.records()
    assert "named_by_a_store" not in sys.modules
    assert str(record.job.architecture) == "named_by_a_store.Layer(mode=a.b)"
    assert record.result.score == 0.25
