"""Intervals of comparisons hold the truth as often as they say: the benchmark's studies, fewer of them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["equal", "C^-0.5", "C^-1"])
def test_intervals_of_differences_and_multipliers_hold_the_truth(case, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = spec_from_file_location("simulated_studies", BENCHMARKS / "coverage.py")  # another package is named coverage
    studies = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "simulated_studies", studies)
    spec.loader.exec_module(studies)
    rows = [row for seed in range(500, 525) for row in studies.measure(case, seed, 200)]
    for number in ("difference", "multiplier"):
        some = [row for row in rows if row["number"] == number]
        assert 0.88 < np.mean([row["held"] for row in some]) < 0.995
        assert np.median([row["width"] / row["oracle"] for row in some]) < 1.5
