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
from archlab.mad.memory import check_memory, peak_bytes
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
    with pytest.raises(ArchlabError, match=r"2 workers need .* GiB for mlp on in-context-recall.*: use --workers 1"):
        check_memory(trials, 2)
    monkeypatch.setattr(memory, "available_bytes", lambda: one // 2)
    with pytest.raises(ArchlabError, match="use a smaller batch or length"):
        check_memory(trials, 2)
    assert check_memory([], 2) == 0
