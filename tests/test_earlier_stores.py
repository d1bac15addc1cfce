"""Stores that archlab 0.1 made before its packages were rebuilt are read, and their numbers computed again to the last bit.

``tests/fixtures`` holds them: ``smoke.db`` (three architectures, two seeds), ``demo.db`` (that of ``make demo``), ``lost.db``
(with a layer whose file is gone) and ``lm.db`` (the language models of the smoke ladder).
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archlab.architectures.stored import is_available
from archlab.corpora import Corpus, prepare
from archlab.machine import cpu_name, single_thread
from archlab.mad.store import Record, TrialStore
from archlab.scaling.store import StudyStore
from archlab.scaling.training_loop import train as train_model
from archlab.store.fingerprint import chosen_kernels
from tests.mad.trials import train

FIXTURES = Path(__file__).parent / "fixtures"
CAPABILITY = "AVX512"
"""Kernels of PyTorch that computed them, which their provenance does not say."""
SUMMED_ANEW = {"mamba"}
"""Layers that add in another order since: equal to the last few bits at first, and no further in long trainings."""
COSTS = {
    "examples_per_second",
    "wall_seconds",
    "cpu_seconds",
    "tokens_per_second",
    "utilisation",
    "gemm",
    "peak_bytes",
    "seconds",
}


@pytest.fixture(name="opened")
def fixture_opened(tmp_path: Path) -> Callable[[str], TrialStore]:
    """A copy of a store."""

    def of(name: str) -> TrialStore:
        return TrialStore(shutil.copy(FIXTURES / name, tmp_path), create=False)

    return of


def records_of(name: str) -> list[Record]:
    with TrialStore(FIXTURES / name, create=False) as store:
        return store.records()


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """What must be equal to the last bit."""
    return {name: value for name, value in values.items() if name not in COSTS}


def skip_elsewhere(provenance: dict[str, Any]) -> None:
    """Bits are the same on the same kind of processor with the same libraries only."""
    here = {"cpu": cpu_name(), "torch": torch.__version__, "numpy": np.__version__}
    there = {name: provenance[name] for name in here}
    here["kernels"], there["kernels"] = torch.backends.cpu.get_cpu_capability(), CAPABILITY
    differing = [f"{name} {there[name]}, here {here[name]}" for name in here if there[name] != here[name]]
    if differing or chosen_kernels():
        pytest.skip(f"computed by {'; '.join(differing) or 'default kernels, here others are chosen'}")


@pytest.mark.parametrize(("name", "number"), [("smoke.db", 36), ("demo.db", 24), ("lost.db", 4)])
def test_every_record_is_read(opened, name, number):
    unreadable: dict[str, str] = {}
    with opened(name) as store:
        records = store.records(unreadable=unreadable)
    assert (len(records), unreadable) == (number, {})
    for record in records:
        assert record.status == record.result.status == "finished"
        assert record.result.curve[-1].step == record.result.steps
        assert 0 <= record.result.score <= 1
        assert record.provenance["commit"].startswith("cf3d37c")


def test_records_of_a_layer_whose_file_is_gone_are_read(opened):
    with opened("lost.db") as store:
        found = {str(record.job.architecture): record for record in store.records()}
    assert {spec: is_available(record.job.architecture) for spec, record in found.items()} == {
        "2*[mh-attention(heads=2) swiglu]": True,
        "2*[fading swiglu]": False,
    }


def test_the_language_models_are_read(tmp_path):
    with StudyStore(shutil.copy(FIXTURES / "lm.db", tmp_path), create=False) as store:
        records = store.records()
    assert len(records) == 6
    assert {record.status for record in records} == {"finished"}
    assert all(2 < record.result.loss < 4 for record in records)


def assert_recomputed(record: Record) -> None:
    skip_elsewhere(record.provenance)
    with single_thread():
        again = train(record.job)
    if {layer.name for layer in record.job.architecture.layers} & SUMMED_ANEW:
        assert again.score == pytest.approx(record.result.score, abs=1e-3)
        for point, before in zip(again.curve, record.result.curve, strict=True):
            assert (point.step, point.train_loss) == (before.step, pytest.approx(before.train_loss, rel=1e-5))
    else:
        assert numbers(again.to_dict()) == numbers(record.result.to_dict())


def title(record: Record) -> str:
    return f"{record.job.architecture}, {record.job.setting.name}, seed {record.job.seed}"


SMOKE = records_of("smoke.db")
CHEAP = [record for record in SMOKE if record.job.seed == 0]
DEMO = [record for record in records_of("demo.db") if record.provenance["wall_seconds"] < 60]
DEMO = [record for record in DEMO if not {layer.name for layer in record.job.architecture.layers} & SUMMED_ANEW]
OTHERS = [record for record in SMOKE if record.job.seed != 0] + DEMO


@pytest.mark.parametrize("record", CHEAP, ids=title)
def test_trials_give_the_same_scores_and_curves_to_the_last_bit(record):
    assert_recomputed(record)


@pytest.mark.slow
@pytest.mark.parametrize("record", OTHERS, ids=title)
def test_more_trials_give_the_same_scores_and_curves_to_the_last_bit(record):
    assert_recomputed(record)


@pytest.fixture(name="stdlib", scope="module")
def fixture_stdlib(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare("stdlib", "ascii", tmp_path_factory.mktemp("corpora"))


@pytest.mark.slow
@pytest.mark.parametrize("index", range(6))
def test_language_models_give_the_same_losses_and_curves_to_the_last_bit(stdlib, tmp_path, index):
    with StudyStore(FIXTURES / "lm.db", create=False) as store:
        record = store.records()[index]
    skip_elsewhere(record.provenance)
    if stdlib.hash != record.job.run.corpus_hash:
        pytest.skip("the standard library of another Python is another corpus")
    with single_thread():
        again = train_model(record.job, stdlib)
    assert numbers(again.to_dict()) == numbers(record.result.to_dict())
