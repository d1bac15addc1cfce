"""The board's findings: intervals of a predicted loss hold, and the chosen tasks are those that agree with all."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

PATH = Path(__file__).parents[2] / "leaderboard" / "findings.py"


@pytest.fixture(scope="module")
def findings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("findings", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_intervals_of_a_predicted_loss_hold_as_often_as_stated(findings: ModuleType):
    rng, held = np.random.default_rng(0), []
    names = [f"a{i}" for i in range(12)]
    for _ in range(40):
        score = pd.Series(rng.normal(size=12), names)
        loss = pd.Series(-0.1 * score.to_numpy() + 0.05 * rng.standard_t(4, size=12), names)
        held += findings.predicted(score, loss).held.tolist()
    assert 0.76 < np.mean(held) < 0.92  # 480 intervals of 80 %: never much less, and not all


def test_an_interval_is_infinite_where_too_few_are_left_out(findings: ModuleType):
    four = pd.Series({"a": 1.0, "b": 2.0, "c": 4.0, "d": 5.0})
    assert np.isinf(findings.predicted(four, -four).high).all()


def test_the_subset_that_agrees_best_is_found_with_its_flops(findings: ModuleType):
    rng = np.random.default_rng(1)
    true = np.arange(20.0)
    scores = pd.DataFrame({"good": true, "noise": rng.permutation(20) / 100, "also noise": rng.permutation(20) / 100})
    found = findings.subsets(scores, pd.Series(-true), {"good": 1.0, "noise": 2.0, "also noise": 1.0})
    assert found.tasks[0] == "good"
    assert found["tau with all"].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert found.FLOPs.tolist()[::2] == [0.25, 1.0]
    assert found["tau with loss"].tolist() == pytest.approx([1.0, 1.0, 1.0])
