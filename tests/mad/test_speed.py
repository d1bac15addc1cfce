"""Measured speeds: what they are of, how they are remembered, that estimates use them."""

import json
from dataclasses import replace

import pytest
from tests.mad.trials import COPYING, MEMORY, trial

from archlab.jobs.executor import make_executor
from archlab.machine import Ceilings
from archlab.mad import estimate, speed
from archlab.mad.speed import cheapest, flops_per_second, kind, measure, measure_jobs, remember, remembered


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_ceilings_come_first_and_a_speed_for_each_trial():
    trials = [trial("mlp"), trial("mh-attention(heads=2)")]
    with make_executor(measure_jobs, 2) as executor:
        ceilings, *speeds = measure(trials, executor)
    assert ceilings.gemm > 1e8
    assert ceilings.copy > 1e8
    assert [found for found, _ in speeds] == trials
    assert all(0 < flops < 10 * ceilings.gemm for _, flops in speeds)


def test_what_was_measured_is_remembered_until_the_machine_changes(monkeypatch):
    assert remembered() is None
    first = remember(Ceilings(1e11, 1e10), {"a": 1.0})
    assert remembered() == first
    remember(Ceilings(2e11, 1e10), {"b": 2.0})
    assert remembered().speeds == {"a": 1.0, "b": 2.0}
    assert remembered().ceilings.gemm == 2e11
    monkeypatch.setattr(speed, "_machine", lambda: {"cpu": "another"})
    assert remembered() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json", '{"machine": null}'])
def test_a_broken_memory_is_none(content):
    speed.cache_path().parent.mkdir(parents=True)
    speed.cache_path().write_text(content)
    assert remembered() is None
    remember(Ceilings(1, 1), {})
    assert json.loads(speed.cache_path().read_text())["speeds"] == {}


def test_a_kind_is_an_architecture_a_task_a_width_and_the_code():
    assert kind(trial("mlp", COPYING)) != kind(trial("swiglu", COPYING))
    assert kind(trial("mlp", COPYING)) != kind(trial("mlp", MEMORY))
    assert kind(trial("mlp")) != kind(trial("mlp", compiled=True)) != kind(trial("mlp", kernels="fla")) != kind(trial("mlp"))
    assert kind(trial("mlp", seed=1)) == kind(trial("mlp", learning_rate=5.0))
    longer = replace(COPYING, length=2 * COPYING.length)
    assert list(cheapest([trial("mlp", longer), trial("mlp", COPYING)]).values()) == [trial("mlp", COPYING)]


def test_estimates_use_what_was_measured(monkeypatch):
    one = trial("mlp")
    remember(Ceilings(1e11, 1e10), {kind(one): 1e6})
    monkeypatch.setattr(estimate, "flops_per_second", lambda _: 1e3)
    found = estimate.estimate([one], 2)
    assert found.seconds == pytest.approx(estimate.all_flops(one) / 1e6)
    assert found.measured is not None
    other = estimate.estimate([one, trial("swiglu")], 1)
    assert other.measured is None
    assert other.seconds == pytest.approx(found.seconds + estimate.all_flops(trial("swiglu")) / 1e3)


def test_a_step_has_a_speed():
    assert 1e5 < flops_per_second(trial("mlp")) < 1e13
