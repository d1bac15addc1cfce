"""A damaged row of the table of runs is named in one line by every command that reads it; the rest is shown."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

from archlab.scaling.study import open_study

FIXTURES = Path(__file__).parent.parent / "fixtures"
DAMAGES = {
    "'{bad'": "plan='{bad': give",
    "x'ff'": "plan=b'\\xff': give",
    "'{}'": "it is damaged (KeyError: 'architectures')",
    "json_set(plan, '$.kind', 5)": "kind=5: give text",
    "json_remove(plan, '$.protocol')": "it is damaged (KeyError: 'protocol')",
    "json_remove(plan, '$.device')": "it is damaged (KeyError: 'device')",
    "json_set(plan, '$.device', 'tpu')": "device='tpu': give one of cpu, cuda",
    "json_set(plan, '$.label', 5)": "label=5: give text",
    "json_set(plan, '$.started', 'x')": "started='x': give a number",
    "json_set(plan, '$.started', 1e300)": "started=1e+300: give a number",
    "json_set(plan, '$.architectures', 5)": "it is damaged (TypeError: ",
    "json_set(plan, '$.architectures', json('[]'))": "architectures=(): give a list",
    "json_set(plan, '$.architectures[0].name', 5)": "architecture: name=5: give text",
    "json_set(plan, '$.protocol.dim', 0)": "protocol smoke: dim=0: give a whole number",
    "json_set(plan, '$.protocol.name', 5)": "protocol 5: name=5: give text",
    "json_set(plan, '$.protocol.tasks', json('[]'))": "it is damaged (AttributeError: ",
    "json_set(plan, '$.protocol.tasks.compression.settings', 5)": "it is damaged (TypeError: ",
    "json_set(plan, '$.protocol.tasks.compression.settings', json('[]'))": "settings=(): give a list",
}
READERS = [
    ["runs"],
    ["runs", "--json"],
    ["scores"],
    ["report"],
    ["trials", "--tasks", "copy"],
    ["store", "export"],
    ["store", "check"],
]


@pytest.mark.parametrize("value", DAMAGES)
def test_a_damaged_run_is_named_and_the_rest_is_shown(archlab: CommandLine, value: str):
    shutil.copy(FIXTURES / "smoke.db", "archlab.db")
    with closing(sqlite3.connect("archlab.db")) as store, store:
        store.execute("INSERT INTO runs (plan) SELECT plan FROM runs")
        store.execute(f"UPDATE runs SET plan = {value} WHERE id = 2")
    for command in READERS if value == "'{}'" else (["runs"], ["store", "check"]):
        outcome = archlab(*command)
        assert outcome.status == (command == ["store", "check"]), outcome.err
        (line,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
        assert line.startswith(f"warning: store archlab.db: run 2 cannot be read: {DAMAGES[value]}")
        assert outcome.out or command in (["report"], ["store", "export"])


def test_a_check_finds_widths_that_layers_do_not_fit_and_leaves_knobs_that_are_gone(archlab: CommandLine):
    shutil.copy(FIXTURES / "smoke.db", "archlab.db")
    with closing(sqlite3.connect("archlab.db")) as store, store:
        store.execute("INSERT INTO runs (plan) SELECT json_set(plan, '$.protocol.dim', 30) FROM runs")
        store.execute("UPDATE trials SET trial = json_set(trial, '$.dim', 30) WHERE id = 1")
        store.execute("UPDATE trials SET trial = json_set(trial, '$.architecture', 'mamba(gone=3)') WHERE id = 3")
    outcome = archlab("store", "check")
    assert outcome.status == 1
    trial, run = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert "mh-attention(heads=2): width 30 does not split" in trial
    assert "run 2 cannot be read: mh-attention(heads=2): width 30 does not split" in run
    archlab("store", "check", "--delete")
    assert archlab("store", "check").status == 0


LM_DAMAGES = {
    "run = '{}'": "it is damaged (KeyError: 'device')",
    "run = 'not json{'": "it is damaged (run='not json{')",
    "run = 17": "it is damaged (run=17)",
    "run = x'ff'": "it is damaged (run=b'\\xff')",
    "run = json_set(run, '$.run.dim', 'x')": "run: dim='x': give",
    "run = json_set(run, '$.run.what', 1)": "run: unknown field 'what'",
    "result = json_set(result, '$.loss', 'x')": "it is damaged ('x' where a number belongs)",
    "result = json_set(result, '$.curve[0][1]', 'x')": "it is damaged ('x' where a number belongs)",
    "status = 'garbage'": "it is damaged (status='garbage')",
}


@pytest.mark.parametrize("damage", LM_DAMAGES)
def test_a_damaged_training_run_is_named_and_the_rest_is_fitted(archlab: CommandLine, damage: str):
    shutil.copy(FIXTURES / "lm.db", "archlab.db")
    with closing(sqlite3.connect("archlab.db")) as store, store:
        store.execute(f"UPDATE language_models SET {damage} WHERE id = (SELECT min(id) FROM language_models)")
    fitted = open_study("archlab.db")
    assert sum(len(table.loss) for table in fitted.tables.values()) == 5
    (line,) = fitted.unreadable
    assert line.startswith("store archlab.db: training run ")
    assert f" cannot be read: {LM_DAMAGES[damage]}" in line
    checked = archlab("store", "check")
    assert (checked.status, checked.err) == (1, f"warning: {line}\n")
    if damage == "run = '{}'":
        outcome = archlab("scale", "fit", "--resamples", "0")
        assert (outcome.status, outcome.err.splitlines()[0]) == (0, f"rows that cannot be read: {line}")
        assert archlab("store", "rekey").err.splitlines()[-1].startswith("1 keep their old key: they cannot be read")
        assert archlab("store", "merge", "archlab.db", "--store", "b.db").err.startswith("0 trials, 6 language models")
    deleted = archlab("store", "check", "--delete")
    assert (deleted.status, deleted.err) == (0, f"warning: {line}\ndeleted 1 row\n")
    assert archlab("store", "check").status == 0


@pytest.mark.parametrize("plan", ['{"kind": "scaling"}', "[1]", '{"kind": "scaling", "name": "p", "trials": [5]}'])
def test_a_damaged_plan_of_language_models_is_named(archlab: CommandLine, plan: str):
    shutil.copy(FIXTURES / "lm.db", "archlab.db")
    with closing(sqlite3.connect("archlab.db")) as store, store:
        store.execute("INSERT INTO runs (plan) VALUES (?)", [plan])
    (line,) = open_study("archlab.db").unreadable
    assert line.startswith("store archlab.db: run 1 cannot be read: ")
    assert archlab("scale", "fit", "--resamples", "0").err.startswith(f"rows that cannot be read: {line}")
    assert line in archlab("store", "check").err
