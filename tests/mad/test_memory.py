"""Predicted memory: what it counts, and that it is near what a training really takes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.mad.trials import trial

from archlab.errors import ArchlabError
from archlab.mad import memory
from archlab.mad.memory import check_memory, fitting_population, peak_bytes
from archlab.tasks import setting
from archlab.training.memory import FRAGMENTATION


def wide(spec, **recipe):
    one = trial(spec, setting("in-context-recall", length=128, num_train_examples=128))
    settings = {"steps": 2, "batch_size": 128, "evaluations": 1, "num_evaluation": 8, **recipe}
    return replace(one, recipe=replace(one.recipe, **settings), dim=128)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("spec", ["mh-attention(heads=2) swiglu", pytest.param("deltanet mlp", marks=pytest.mark.slow)])
def test_the_peak_of_tensors_is_as_predicted(spec):
    found = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "benchmarks" / "peak_memory.py", "--one", spec],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)},  # what is freed is given back
    )
    assert peak_bytes(wide(spec)) / FRAGMENTATION == pytest.approx(int(found.stdout), rel=0.05)


@pytest.mark.parametrize(
    "spec",
    [
        "attention mlp",
        *(
            pytest.param(spec, marks=pytest.mark.slow)
            for spec in ("mamba-2 mlp", "hyena swiglu", "mh-hyena(heads=8) mlp", "gated-linear-attention mlp")
        ),
    ],
)
def test_activations_grow_with_the_batch_and_weights_do_not(spec):
    small, double, deep = (peak_bytes(wide(s, batch_size=b)) for s, b in ((spec, 32), (spec, 64), (f"{spec} {spec}", 32)))
    assert 1.3 < double / small < 2.05
    assert 1.2 < deep / small < 2.05


@pytest.mark.parametrize("spec", ["mh-hyena(heads=2) swiglu", "attention mlp", pytest.param("mamba mlp", marks=pytest.mark.slow)])
def test_few_sequences_stand_for_a_batch_whose_step_is_long(spec, monkeypatch):
    whole = peak_bytes(wide(spec, batch_size=32))
    memory._step_bytes.cache_clear()
    monkeypatch.setattr(memory, "LONG_STEP", 50)
    seen = []
    step = memory.step_bytes
    monkeypatch.setattr(memory, "step_bytes", lambda *args, **more: seen.append(more.get("few")) or step(*args, **more))
    assert peak_bytes(wide(spec, batch_size=32)) == pytest.approx(whole, rel=0.02)
    assert seen[-1] in range(2, 32)
    memory._step_bytes.cache_clear()


def test_a_run_that_does_not_fit_is_refused_with_what_does(monkeypatch):
    trials = [wide("mlp"), wide("mlp", steps=3)]
    one = peak_bytes(trials[0]) + memory.PROCESS_BYTES
    monkeypatch.setattr(memory, "available_bytes", lambda: int(1.5 * one))
    assert check_memory(trials[:1], 2) == one
    with pytest.raises(ArchlabError, match=r"2 workers need .* GiB for mlp on in-context-recall.*: use 1 worker "):
        check_memory(trials, 2)
    monkeypatch.setattr(memory, "available_bytes", lambda: one // 2)
    with pytest.raises(ArchlabError, match="use a smaller batch or length"):
        check_memory(trials, 2)
    assert check_memory([], 2) == 0


def on_gpu(monkeypatch, one, **gibibytes):
    """A trial on a GPU, of which nvidia-smi says that it has so many GiB."""
    monkeypatch.setattr(memory, "query_gpus", lambda field: [str(gibibytes[field.removeprefix("memory.")] << 10)])
    return replace(one, device="cuda")


def test_a_gpu_that_is_too_small_is_refused(monkeypatch):
    one = on_gpu(monkeypatch, wide("mlp"), total=1)
    assert check_memory([one], 1) == peak_bytes(one) + memory.GPU_PROCESS_BYTES
    with pytest.raises(ArchlabError, match=r"1 workers need .* GiB for mlp .*, a GPU has 1\.0: use a smaller population"):
        check_memory([one], 1, population=64)


def test_trials_are_together_only_where_one_does_not_fill_a_gpu(monkeypatch):
    small = trial("mlp", setting("in-context-recall", length=32, num_train_examples=128), batch_size=128)
    assert fitting_population([on_gpu(monkeypatch, small, free=80)], 1) == memory.MOST_TOGETHER
    assert fitting_population([on_gpu(monkeypatch, wide("mlp"), free=80)], 1) == 1
    assert fitting_population([small], 1) == 1


def test_the_peak_on_a_gpu_is_that_of_its_own_branches():
    recall = trial("mh-attention(heads=2) swiglu", setting("in-context-recall", length=128, num_train_examples=128))
    assert peak_bytes(replace(recall, device="cuda")) != peak_bytes(recall)
