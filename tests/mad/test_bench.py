"""Measured speed of a machine: ceilings and steps on all workers, and a row for each architecture of each protocol."""

import pytest
from tests.fake_training import ThreadExecutor, made_up_speeds
from tests.mad.trials import trial

from archlab.jobs.local import LocalExecutor
from archlab.machine import Ceilings
from archlab.mad import bench as module
from archlab.mad.bench import bench, measure, measure_group
from archlab.mad.estimate import all_flops
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol, protocol_names
from archlab.mad.speed import remembered


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_ceilings_and_a_speed_for_each_trial_are_measured_in_workers():
    trials = [trial("mlp"), trial("mh-attention(heads=2)")]
    with LocalExecutor(measure_group, 2) as executor:
        ceilings, speeds = measure("cpu", trials, executor)
    assert ceilings.gemm > 1e8
    assert ceilings.copy > 1e8
    assert len(speeds) == 2
    assert all(0 < flops < 10 * ceilings.gemm for flops in speeds)


def test_speeds_are_medians_over_all_workers():
    answers = iter([Ceilings(1, 9), Ceilings(2, 8), Ceilings(9, 1), 5.0, 1.0, 2.0])

    def work(jobs, on_progress, thresholds):
        yield 0, next(answers)

    executor = ThreadExecutor(work, 3)
    executor.threads._max_workers = 1  # one after the other, so that the answers keep their order
    assert measure("cpu", [trial("mlp")], executor) == (Ceilings(2, 8), [2.0])


def test_every_protocol_has_a_row_for_each_architecture(monkeypatch):
    monkeypatch.setattr(module, "measure", made_up_speeds)
    lines: list[str] = []
    found = bench(["mlp", "1*mamba"], 2, say=lines.append)
    assert [(row.protocol, row.architecture) for row in found.rows] == [
        (name, spec) for name in protocol_names() for spec in ("mlp", "1*mamba")
    ]
    assert (found.num_workers, found.ceilings) == (2, Ceilings(1e11, 1e10))
    assert all(row.fraction_of_gemm == pytest.approx(0.4) for row in found.rows)
    assert all(row.ms * row.examples_per_second == pytest.approx(1e3 * 128) for row in found.rows if row.protocol == "paper")
    smoke = next(row for row in found.rows if row.protocol == "smoke")
    trials = make_plan(load_protocol("smoke").with_seeds([0]), ["mlp"]).trials()
    assert smoke.seconds == pytest.approx(sum(map(all_flops, trials)) / 4e10 / 2)
    assert set(remembered().speeds.values()) == {4e10}
    assert lines == [f"measuring {len(remembered().speeds)} kinds of training step with 2 workers at once: about a second each"]
