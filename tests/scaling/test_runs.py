"""Runs of training runs as `archlab runs` lists them: how much is done, how each ended, what failed and how to retry."""

import json
import socket

from tests.scaling.synthetic_ladders import result, trial

from archlab.jobs.attempts import noted
from archlab.jobs.events import RunEnded, RunSummary
from archlab.scaling.store import StudyStore

TRIALS = [trial("a", 1e17, size, 1e17 / 6 / size, corpus_hash="0") for size in (1e6, 2e6, 3e6)]


def test_runs_lists_training_runs_with_how_they_ended_and_how_to_retry(archlab, tmp_path):
    with StudyStore(tmp_path / "archlab.db") as store:
        number = store.remember_plan("my plan.yaml", TRIALS)
        with noted(store, number, "local", "cpu") as attempt:
            claimed = store.claim(TRIALS, 3)
            store.finish(claimed[0], result(3.0), {})
            store.fail(claimed[1], "loss at step 7: no memory\nTraceback", {})
            store.fail(claimed[2], "loss at step 12: no memory", {})
            attempt(RunEnded(RunSummary(total=3, computed=1, failed={one.key: "no memory" for one in claimed[1:]})))
    (row,) = json.loads(archlab("runs", "--json").out)
    assert (row["kind"], row["number"], row["plan"], row["architectures"]) == ("training runs", number, "my plan.yaml", ["a"])
    assert (row["budgets"], row["training_runs"], row["done"]) == ([1e17], 3, 1)
    assert (row["ended"], row["host"]) == ("2 failed", socket.gethostname())
    assert row["failures"] == {"loss at step 7: no memory": 2}
    shown = archlab("runs")
    assert "my plan.yaml" in shown.out
    assert "1 of 3" in shown.out
    assert shown.err.splitlines()[-2:] == [
        f"run {number}: 2 failed: loss at step 7: no memory",
        f"run {number}: `archlab scale run 'my plan.yaml'` tries them again",
    ]
