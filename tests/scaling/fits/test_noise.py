"""The size of errors is found budget by budget, with failed runs among them."""

import numpy as np
import pytest

from archlab.scaling.fits.noise import error_scales, first_scales, outlier_limit

BUDGETS = np.array([4e18, 8e18, 2e19, 4e19, 8e19])


@pytest.mark.parametrize("falling", [0, 0.5, 1])
def test_errors_that_fall_with_the_budget_are_followed(falling):
    flops = np.repeat(BUDGETS, 40)
    truth = 0.01 * (flops / 4e18) ** -falling
    error = truth * np.random.default_rng(0).normal(size=len(flops))
    assert error_scales(error**2, flops, BUDGETS) == pytest.approx(truth[::40], rel=0.2)
    error[::50] = 5.0
    assert first_scales(error, flops, 5)[::40] == pytest.approx(truth[::40], rel=0.5)


def test_a_budget_leaves_the_line_if_its_own_runs_contradict_it():
    flops = np.repeat(BUDGETS, 30)
    truth = np.where(flops == 2e19, 0.1, 0.01)
    found = error_scales((truth * np.random.default_rng(0).normal(size=len(flops))) ** 2, flops, BUDGETS)
    assert found[2] > 5 * found[[0, 1, 3, 4]].max()


def test_one_budget_has_one_scale_and_few_runs_a_wide_limit():
    square = np.random.default_rng(0).normal(size=50) ** 2
    assert error_scales(square, np.full(50, 1e18), np.array([1e18])) == pytest.approx(np.sqrt(square.mean()))
    assert outlier_limit(8) > 1.4 * outlier_limit(100)


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_budgets_of_few_runs_keep_to_the_line(runs):
    flops = np.repeat(np.geomspace(4e18, 8e19, 60), runs)
    spreads = []
    for seed in range(20):
        found = error_scales(np.random.default_rng(seed).normal(size=len(flops)) ** 2, flops, flops)
        spreads.append(np.ptp(np.log(found) - np.poly1d(np.polyfit(np.log(flops), np.log(found), 1))(np.log(flops))))
    assert np.mean(spreads) < 0.5
