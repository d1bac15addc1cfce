"""archlab scale tune, plan --tuned and fit --tuned, with trainings that take no time."""

import json
import math

import pytest
from tests.cli.command_line import CommandLine
from tests.fake_training import threads
from tests.scaling.language_models import write_corpus
from tests.scaling.synthetic_ladders import SMALL, result

from archlab.scaling.training_plan import Plan


def train(one, on_progress, thresholds):
    run = one.run
    return result(float(SMALL.loss(run.params, run.tokens)) + 0.02 * math.log2(run.learning_rate / 4e-2) ** 2)


@pytest.mark.slow
def test_rates_are_tuned_planned_and_shown_beside_comparisons(archlab: CommandLine, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("archlab.scaling.estimate._step_seconds", lambda run: 0.01)
    monkeypatch.setattr("archlab.scaling.api.make_executor", lambda *_, **__: threads(train, num_workers=2))
    plan = ("scale", "plan", "transformer++", "attention", "--data", str(write_corpus(tmp_path)), "--repeat")
    assert archlab(*plan, "--tokenizer", "ascii").status == 0
    tuned = archlab("scale", "tune", "plan.yaml")
    assert tuned.status == 0, tuned.err
    assert "transformer++" in tuned.out
    assert "+0.0200" in tuned.out
    assert "factors on the plan's learning rates: attention 2, transformer++ 2; " in tuned.err
    assert "lr 0.04: loss" in tuned.err
    document = json.loads(archlab("scale", "tune", "plan.yaml", "--json").out)
    assert document["factors"] == {"attention": 2.0, "transformer++": 2.0}
    assert [rate for rate, _ in document["rates"][0]["losses"]] == [0.01, 0.02, 0.04, 0.08]
    planned = archlab(*plan, "--tokenizer", "ascii", "--tuned", "tune.db", "-o", "tuned.yaml")
    assert planned.status == 0, planned.err
    assert " 0.04 " in planned.out
    assert archlab("scale", "run", "tuned.yaml", "--store", "study.db").status == 0
    fitted = archlab("scale", "fit", "--store", "study.db", "--tuned", "tune.db", "--resamples", "0")
    assert fitted.status == 0, fitted.err
    assert "loss at half" in " ".join(fitted.out.split())
    both = json.loads(archlab("scale", "fit", "--store", "study.db", "--tuned", "tune.db", "--resamples", "0", "--json").out)
    assert both["tuning"]["factors"] == {"attention": 1.0, "transformer++": 1.0}
    missing = archlab("scale", "fit", "--store", "study.db", "--tuned", "nowhere.db", "--resamples", "0")
    assert (missing.status, missing.out) == (2, "")


def test_models_within_bounds_are_trained_alone(archlab: CommandLine, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("archlab.scaling.estimate._step_seconds", lambda run: 0.01)
    monkeypatch.setattr("archlab.scaling.api.make_executor", lambda *_, **__: threads(train, num_workers=2))
    plan = ("scale", "plan", "attention", "--ladder", "smoke", "--data", str(write_corpus(tmp_path)), "--repeat")
    assert archlab(*plan, "--tokenizer", "ascii").status == 0
    params = [run.params for run in Plan.load("plan.yaml").runs]
    ran = archlab("scale", "run", "plan.yaml", "--params", f"{params[1]},1e9", "--json")
    assert [run["run"]["params"] for run in json.loads(ran.out)["runs"]] == params[1:]
    none = archlab("scale", "run", "plan.yaml", "--params", "0,10")
    assert (none.status, none.out) == (2, "")
    assert "params=[0.0, 10.0]: no model of the plan has so many" in none.err
