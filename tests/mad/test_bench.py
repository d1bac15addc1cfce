"""Measured speed of a machine: a row for each architecture of each protocol."""

import pytest
from tests.fake_training import ThreadExecutor, made_up_speeds
from tests.mad.trials import trial

from archlab.errors import ArchlabError
from archlab.machine import Ceilings
from archlab.mad import bench as module
from archlab.mad.bench import bench
from archlab.mad.estimate import all_flops, measure, remembered
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol, protocol_names


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_worker_measures():
    answers = iter([5.0, 1.0, 2.0])

    def work(jobs, on_progress, thresholds):
        yield 0, next(answers)

    executor = ThreadExecutor(work, 1)
    executor.num_workers = 3  # on one thread, so that the answers keep their order
    assert measure(trial("mlp"), executor) == [5.0, 1.0, 2.0]


def test_speeds_are_medians_over_all_workers(monkeypatch):
    ceilings = [Ceilings(1, 9), Ceilings(2, 8), Ceilings(9, 1)]
    monkeypatch.setattr(module, "measure", lambda job, _: ceilings if job == "cpu" else [5.0, 1.0, 2.0])
    assert bench(["mlp"], ["smoke"], workers=1).ceilings == Ceilings(2, 8)
    assert set(remembered()[1].values()) == {2.0}


@pytest.mark.slow
def test_every_protocol_has_a_row_for_each_architecture(monkeypatch):
    monkeypatch.setattr(module, "measure", made_up_speeds)
    seen: list[tuple[int, int]] = []
    found = bench(["mlp", "1*mamba"], workers=2, on_progress=lambda *done: seen.append(done))
    rows = [(row.protocol, row.architecture) for row in found.steps]
    assert rows == [(name, spec) for name in protocol_names() for spec in ("mlp", "1*mamba")]
    assert (found.num_workers, found.device, found.ceilings) == (2, "cpu", Ceilings(1e11, 1e10))
    assert all(row.fraction_of_gemm == pytest.approx(0.4) for row in found.steps)
    assert all(row.ms * row.examples_per_second == pytest.approx(1e3 * 128) for row in found.steps if row.protocol == "paper")
    smoke = next(row for row in found.steps if row.protocol == "smoke")
    trials = make_plan(load_protocol("smoke").with_seeds([0]), ["mlp"]).trials()
    assert smoke.seconds == pytest.approx(sum(map(all_flops, trials)) / 4e10 / 2)
    _, speeds = remembered()
    assert set(speeds.values()) == {4e10}
    assert seen == [(number, len(speeds)) for number in range(len(speeds) + 1)]


def test_a_profile_has_a_row_for_each_architecture_of_each_protocol(monkeypatch):
    monkeypatch.setattr(module, "measure", made_up_speeds)
    found = bench(["mlp", "swiglu"], ["smoke"], workers=1, profile=True)
    assert [(row.protocol, row.architecture) for row in found.profiles] == [("smoke", "mlp"), ("smoke", "swiglu")]
    assert all(row.fractions["channel mixers"] > 0 == row.fractions["sequence mixers"] for row in found.profiles)
    assert found.to_dict()["profiles"][0]["cpu_seconds"] == found.profiles[0].cpu_seconds
    assert bench(["mlp"], ["smoke"], workers=1).to_dict()["profiles"] == []


def test_a_gpu_is_not_profiled():
    with pytest.raises(ArchlabError, match=r"^profile=True: device='cuda': only a CPU is profiled"):
        bench(["mlp"], ["smoke"], device="cuda", profile=True)
