"""Measured speeds and how they are remembered; the cost of trials that is estimated from them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import torch
from tests.mad.trials import COPYING, MEMORY, trial

from archlab.architectures import CATALOGUE, architecture
from archlab.jobs.executor import make_executor
from archlab.mad import estimate as estimate_module
from archlab.mad.estimate import (
    Estimate,
    all_flops,
    cheapest,
    compilation,
    estimate,
    flops_per_second,
    kind,
    measure,
    measure_jobs,
    remember,
    remembered,
    times_faster_by_kernels,
)
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol
from archlab.tasks import setting


@pytest.fixture(name="smoke")
def fixture_smoke():
    return load_protocol("smoke")


def test_an_estimate_times_real_steps(smoke):
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    trials = make_plan(smoke, ["transformer++", "mlp"]).trials()
    found = estimate(trials, num_workers=2)
    assert found.trials == len(trials) == 12
    assert found.flops == sum(trial.flops for trial in trials)
    assert 1e-3 < found.seconds < 100
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.fixture(name="steady")
def fixture_steady(monkeypatch):
    """A machine of 1e9 FLOP/s whatever it trains; the trials that were timed on it."""
    timed = []

    def speed(trial):
        timed.append(trial)
        return 1e9

    monkeypatch.setattr(estimate_module, "flops_per_second", speed)
    return timed


def test_time_counts_training_and_evaluation(smoke, steady):
    trial = make_plan(smoke.with_tasks(["compression"]), ["mlp"]).trials()[0]
    forward = trial.architecture.flops(length=8, vocab_size=16, dim=32, backbone="auto-encoder")
    found = estimate([trial], num_workers=1)
    assert found.flops == 3 * forward * 8 * 8  # steps x batch
    assert found.seconds == pytest.approx((found.flops + (2 + 1) * 32 * forward) / 1e9)  # two evaluations and the test


def test_time_grows_with_seeds_and_shrinks_with_workers(smoke, steady):
    def seconds(seeds, workers):
        return estimate(make_plan(smoke.with_seeds(range(seeds)), ["mlp"]).trials(), workers).seconds

    once = seconds(1, 1)
    assert seconds(3, 1) == pytest.approx(3 * once)
    assert seconds(3, 2) == pytest.approx(1.5 * once)
    assert seconds(1, 1000) == pytest.approx(once / 6)  # no more workers than trials


def test_a_whole_protocol_is_estimated_from_one_setting_of_a_task_and_architecture(steady):
    found = estimate(make_plan(load_protocol("paper"), list(CATALOGUE)).trials(), num_workers=2)
    distinct = {architecture(name, layer_defaults=load_protocol("paper").layer_defaults) for name in CATALOGUE}
    assert len(steady) == 6 * len(distinct)
    assert found.trials == 396 * len(distinct)
    assert {trial.setting.length for trial in steady if trial.setting.name == "in-context-recall"} == {128}
    transformer = estimate(make_plan(load_protocol("paper"), ["transformer++"]).trials(), num_workers=2)
    assert 1e17 < transformer.flops < 1e18


def test_compiling_pays_if_it_saves_more_than_it_takes(smoke, monkeypatch):
    def steps(trial):
        return [6.0, 1.0, 1.5] if trial.recipe.compiled else [9.0, 3.0, 2.0]

    monkeypatch.setattr(estimate_module, "step_seconds", steps)
    monkeypatch.setattr(estimate_module, "timed_flops", lambda trial: trial.flops / 20)
    plan = make_plan(smoke.with_tasks(["compression"]).with_seeds(range(4)), ["mlp"])
    assert compilation(plan.trials(), num_workers=2) is None
    trials = [replace(trial, recipe=replace(trial.recipe, compiled=True)) for trial in plan.trials()]
    found = compilation(trials, num_workers=2)
    assert found.seconds == 5.0  # of the first step, in every worker
    assert found.saved == pytest.approx(4 * 20 * (2.0 - 1.0))
    assert found.pays
    monkeypatch.setattr(estimate_module, "step_seconds", lambda trial: [50.0, 1.0, 1.0] if trial.recipe.compiled else [2.0, 2.0])
    assert not compilation(trials, num_workers=2).pays  # twice 49 seconds for 80


def test_kernels_are_timed_beside_the_operations_in_eager_steps(smoke, monkeypatch):
    seen = []

    def steps(trial):
        seen.append((trial.recipe.kernels, trial.recipe.compiled))
        return [9.0, 2.0, 1.0] if trial.recipe.kernels == "fla" else [9.0, 4.0, 3.0]

    monkeypatch.setattr(estimate_module, "step_seconds", steps)
    plan = make_plan(smoke.with_tasks(["compression"]), ["mamba-2"])
    assert times_faster_by_kernels(plan.trials()) is None
    trials = [replace(trial, recipe=replace(trial.recipe, kernels="fla", compiled=True)) for trial in plan.trials()]
    assert times_faster_by_kernels(trials) == pytest.approx(3.0)
    assert seen == [("fla", False), ("torch", False)]


def test_nothing_costs_nothing():
    assert estimate([], num_workers=4) == Estimate(trials=0, flops=0, seconds=0, measured=None)


# Measured speeds


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_workers_measure_their_ceilings_and_the_speed_of_a_trial():
    with make_executor(measure_jobs, 2) as executor:
        ceilings, speeds = measure("cpu", executor), measure(trial("mlp"), executor)
    assert len(ceilings) == len(speeds) == 2
    assert all(found.gemm > 1e8 and found.copy > 1e8 for found in ceilings)
    assert all(0 < flops < 10 * ceilings[0].gemm for flops in speeds)


def test_what_was_measured_is_remembered_until_the_machine_changes(monkeypatch):
    assert remembered() == (None, {})
    remember({"a": 1.0})
    when, _ = remembered()
    assert datetime.now(UTC) - datetime.fromisoformat(when) < timedelta(minutes=2)
    remember({"b": 2.0})
    assert remembered()[1] == {"a": 1.0, "b": 2.0}
    monkeypatch.setattr(estimate_module, "_machine", lambda: {"cpu": "another"})
    assert remembered() == (None, {})


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json", '{"machine": null}'])
def test_a_broken_memory_is_none(content):
    estimate_module.cache_path().parent.mkdir(parents=True)
    estimate_module.cache_path().write_text(content)
    assert remembered() == (None, {})
    remember({})
    assert json.loads(estimate_module.cache_path().read_text())["speeds"] == {}


def test_a_kind_is_an_architecture_a_task_a_width_and_the_code():
    assert kind(trial("mlp", COPYING)) != kind(trial("swiglu", COPYING))
    assert kind(trial("mlp", COPYING)) != kind(trial("mlp", MEMORY))
    assert kind(trial("mlp")) != kind(trial("mlp", compiled=True)) != kind(trial("mlp", kernels="fla")) != kind(trial("mlp"))
    assert kind(trial("mlp", seed=1)) == kind(trial("mlp", learning_rate=5.0))
    longer = replace(COPYING, length=2 * COPYING.length)
    assert list(cheapest([trial("mlp", longer), trial("mlp", COPYING)]).values()) == [trial("mlp", COPYING)]


def test_estimates_use_what_was_measured(monkeypatch):
    one = trial("mlp")
    remember({kind(one): 1e6})
    monkeypatch.setattr(estimate_module, "flops_per_second", lambda _: 1e3)
    found = estimate([one], 2)
    assert found.seconds == pytest.approx(all_flops(one) / 1e6)
    assert found.measured is not None
    other = estimate([one, trial("swiglu")], 1)
    assert other.measured is None
    assert other.seconds == pytest.approx(found.seconds + all_flops(trial("swiglu")) / 1e3)


def test_a_step_has_a_speed():
    assert 1e5 < flops_per_second(trial("mlp")) < 1e13


def test_a_gpu_is_timed_at_the_trials_own_batch():
    recall = setting("in-context-recall", length=128, num_train_examples=512)
    one = trial("mlp", recall, batch_size=128)
    assert estimate_module._timed_batch(replace(one, device="cuda")) == 128 > estimate_module._timed_batch(one)
