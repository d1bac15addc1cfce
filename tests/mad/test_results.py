"""Runs of a store are listed and chosen by number or label; a narrower one hides none."""

import json
import sqlite3
from dataclasses import replace

import pytest
from tests.synthetic_records import PROVENANCE, result

import archlab
from archlab.architectures import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.mad.plan import make_plan
from archlab.mad.protocol import Protocol, parse_protocol
from archlab.mad.store import TrialStore

TEXT = """
summary: a small one
dim: 32
layer_defaults: {mh-attention: {heads: 2}}
seeds: [0, 1]
grid: {learning_rate: [2.0e-3, 1.0e-3], weight_decay: [0.0]}
recipe: {steps: 8, stop_accuracy: 0.9}
tasks: {compression: {base: {length: 8}, vary: {length: [10]}}, memorization: {base: {length: 4}}}
"""


@pytest.fixture(name="protocol")
def fixture_protocol() -> Protocol:
    return parse_protocol("small", TEXT)


@pytest.fixture(name="path")
def fixture_path(tmp_path):
    return tmp_path / "a.db"


def remember(path, protocol, specs, *, label="", device="cpu", finished=True) -> None:
    plan = make_plan(protocol, specs, device)
    with TrialStore(path) as store:
        store.remember_run(plan.to_dict(), label=label)
        for trial in plan.trials() if finished else ():
            store.finish(trial, result(trial, [1, 2]), PROVENANCE)


def labels(plan) -> list[str]:
    return [value.label for value in plan.architectures]


def test_a_narrower_later_run_hides_nothing(path, protocol):
    remember(path, protocol, ["mlp", "swiglu"])
    remember(path, protocol.with_tasks(["compression"]).with_seeds([1]), ["hyena"])
    with archlab.open(path) as results:
        scores = results.scores()
        assert scores.tasks == ("compression", "memorization")
        assert {a.label: a.num_complete for a in scores.architectures} == {"mlp": 3, "swiglu": 3, "hyena": 0}
        assert results.scores(2).tasks == ("compression",)
        assert [a.label for a in results.scores(2).architectures] == ["hyena"]


def test_a_label_is_the_name_of_one_architecture(path, protocol):
    def named(name: str, spec: str) -> Architecture:
        return replace(architecture(spec), name=name)

    remember(path, protocol, [named("mine", "mlp"), "hyena"])
    remember(path, protocol, [named("mine", "swiglu")])
    remember(path, protocol, [named("other", "swiglu"), named("mine", "hyena")])
    with archlab.open(path) as results:
        assert labels(results.plan()) == ["mlp", "mine", "other"]
        assert labels(results.plan(1)) == ["mine", "hyena"]
        rows = results.trials()
        assert dict(zip(rows.spec, rows.architecture, strict=True)) == {
            "mlp": "mlp",
            str(architecture("hyena")): "mine",
            "swiglu": "other",
        }


def test_runs_under_other_conditions_are_not_compared(path, protocol):
    remember(path, protocol, ["mlp"], device="cuda")
    remember(path, replace(protocol, dim=64), ["hyena"])
    remember(path, protocol, ["swiglu"])
    with archlab.open(path) as results:
        assert labels(results.plan()) == ["swiglu"]
        assert labels(results.plan(1)) == ["mlp"]


def test_the_latest_run_of_a_protocol_is_found_behind_later_ones(path, protocol):
    remember(path, protocol, ["mlp"])
    remember(path, replace(protocol, name="other"), ["swiglu"])
    with archlab.open(path) as results:
        assert labels(results.plan()) == ["swiglu"]
        assert labels(results.plan(protocol="small")) == ["mlp"]
        with pytest.raises(ArchlabError, match=r"has no run of protocol 'papr', only of other, small$"):
            results.plan(protocol="papr")


def test_a_store_without_runs_says_how_to_make_one(path):
    TrialStore(path).close()
    with (
        archlab.open(path) as results,
        pytest.raises(ArchlabError, match=r"has no runs.*`archlab run SPEC --store"),
    ):
        results.scores()


def test_runs_are_listed_with_what_is_done_of_them(path, protocol):
    remember(path, protocol, ["mlp", "swiglu"], label="wide")
    remember(path, protocol.with_seeds([5]), ["transformer++"], finished=False)
    with archlab.open(path) as results:
        frame = results.runs()
    assert frame["number"].tolist() == [1, 2]
    assert frame["label"].tolist() == ["wide", ""]
    assert frame["architectures"].tolist() == [["mlp", "swiglu"], ["transformer++"]]
    assert frame["trials"].tolist() == [24, 6]
    assert frame["done"].tolist() == [24, 0]
    assert all(frame["started"].str.match(r"20\d\d-\d\d-\d\dT"))


def test_grid_points_that_a_race_left_out_are_done(path, protocol):
    plan = make_plan(protocol.with_tasks(["memorization"]).with_seeds([0]), ["mlp"])
    with TrialStore(path) as store:
        store.remember_run(plan.to_dict())
        store.finish(plan.trials()[0], result(plan.trials()[0], [4, 4]), PROVENANCE)
    with archlab.open(path) as results:
        assert results.runs()[["trials", "done"]].values.tolist() == [[2, 2]]


def test_a_run_is_chosen_by_number_or_label_and_a_wrong_one_is_named(path, protocol):
    remember(path, protocol, ["mlp"], label="first")
    remember(path, protocol, ["swiglu"])
    with archlab.open(path) as results:
        assert labels(results.plan("first")) == labels(results.plan(1)) == labels(results.plan("1")) == ["mlp"]
        with pytest.raises(ArchlabError, match=r"unknown run 'frist': did you mean 'first'\?; `archlab runs` lists them$"):
            results.plan("frist")


def test_scores_are_filtered_by_architecture_task_and_setting(path, protocol):
    remember(path, protocol, ["mlp", "transformer++"])
    with archlab.open(path) as results:
        scores = results.scores(architectures=["transformer++"], tasks=["compression"], settings="base")
        assert [a.label for a in scores.architectures] == ["transformer++"]
        assert scores.tasks == ("compression",)
        assert [len(task.settings) for task in scores.architectures[0].tasks] == [1]
        with pytest.raises(ArchlabError, match=r"unknown architecture of the run: 'transfomer\+\+'"):
            results.scores(architectures=["transfomer++"])


def test_trials_are_rows_that_can_be_filtered(path, protocol):
    remember(path, protocol, ["mlp", "swiglu"], label="a")
    remember(path, protocol.with_seeds([0]), ["hyena"], label="b")
    with archlab.open(path) as results:
        assert len(results.trials()) == 24 + 6
        assert set(results.trials(run="b")["architecture"]) == {"hyena"}
        frame = results.trials(architectures=["mlp"], tasks=["memorization"], status="finished")
        assert frame[["architecture", "task", "learning_rate", "seed", "score"]].values.tolist() == [
            ["mlp", "memorization", rate, seed, 0.375] for seed in (0, 1) for rate in (2e-3, 1e-3)
        ]
        assert results.trials(status="failed").empty


def test_deleted_trials_are_computed_again_and_running_ones_are_left(path, protocol):
    remember(path, protocol, ["mlp"])
    with TrialStore(path) as store:
        first, second, *_ = store.records()
        assert store.delete([first.key, "0" * 32]) == 1
        assert store.claim([first.job, second.job], 2) == [first.job]
        assert store.delete([first.key]) == 0


@pytest.mark.parametrize("specs", [["mlpp"], ["my_module.Layer swiglu"]])
def test_results_outlive_the_layers_that_gave_them(path, protocol, specs):
    remember(path, protocol, ["mlp", "swiglu"])
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE trials SET trial = json_set(trial, '$.architecture', ?) WHERE trial ->> 'architecture' = 'mlp'", specs
        )
        ((number, plan),) = connection.execute("SELECT id, plan FROM runs").fetchall()
        plan = json.loads(plan)
        plan["architectures"][0] = {"spec": specs[0], "name": None}
        connection.execute("UPDATE runs SET plan = ? WHERE id = ?", (json.dumps(plan), number))
    connection.close()
    with archlab.open(path) as results:
        scores = results.scores()
        assert results.unreadable == {}
    assert {a.label: (a.available, a.score) for a in scores.architectures} == {
        "swiglu": (True, 0.375),
        specs[0]: (False, 0.375),
    }
