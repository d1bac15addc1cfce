"""Intervals of statistics of minima: those of least squares, with shared errors cancelled, holding the truth as stated."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from archlab.scaling.analysis.precision import estimate
from archlab.scaling.fits import Resampling
from archlab.scaling.study import RunTable

RESAMPLING = Resampling(20)
SIZES = np.array([1.0, 2.0, 4.0, 8.0, 16.0]) * 1e6


def table(noise, budgets=(1e15, 4e15), sizes=SIZES, best=4e6) -> RunTable:
    """Losses of a parabola in log size, the same at every budget, and errors of all runs."""
    count = len(budgets)
    size_index = np.tile(np.arange(len(sizes)), count)
    size, flops = np.tile(sizes, count), np.repeat(budgets, len(sizes))
    loss = 3 + 0.1 * np.log(size / best) ** 2 + noise
    zero = np.zeros_like(size_index)
    return RunTable("a", flops, size_index, zero, flops, size, flops / 6 / size, loss, size, models=(), censored=())


def errors(seed, count=10, scale=0.003):
    return scale * np.random.default_rng(seed).normal(size=count)


def lowest(minima):
    return minima[0][1e15].loss


def test_a_single_interval_is_that_of_least_squares():
    one = table(errors(0))
    found = estimate(lowest, [one], RESAMPLING)
    x = np.log(SIZES)
    powers = np.vander(x, 3)
    residuals = [loss - powers @ np.polyfit(x, loss, 2) for loss in one.loss.reshape(2, 5)]
    deviation = np.sqrt(sum((r**2).sum() for r in residuals) / 4)
    at = np.vander([np.log(one.minima[1e15].size)], 3) @ np.linalg.pinv(powers)
    # of equal errors at two budgets a little of the difference between the budgets is believed
    assert found.high - found.value == pytest.approx(t.ppf(0.975, 4) * deviation * np.linalg.norm(at), rel=0.3)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    wider = estimate(lowest, [one], Resampling(20, confidence=0.99))
    assert (wider.high - wider.low) / (found.high - found.low) == pytest.approx(t.ppf(0.995, 4) / t.ppf(0.975, 4))


def test_a_failed_run_and_another_budget_do_not_widen_an_interval():
    noise, budgets, sizes = errors(0, 28), (1e15, 4e15, 1.6e16, 6.4e16), np.geomspace(1e6, 1.6e7, 7)
    calm = estimate(lowest, [table(noise, budgets, sizes)], RESAMPLING)
    failed = noise.copy()
    failed[8] = 7.0
    found = estimate(lowest, [table(failed, budgets, sizes)], RESAMPLING)
    assert found.high - found.low == pytest.approx(calm.high - calm.low, rel=0.2)


def test_an_interval_is_as_wide_as_the_errors_of_its_budget():
    budgets, sizes = (1e15, 4e15, 1.6e16, 6.4e16), np.geomspace(1e6, 1.6e7, 9)
    scale = np.repeat([0.03, 0.01, 0.003, 0.001], 9)
    one = table(scale * np.random.default_rng(0).normal(size=36), budgets, sizes)
    first, last = (estimate(lambda minima, b=b: minima[0][b].loss, [one], RESAMPLING) for b in (budgets[0], budgets[-1]))
    assert first.high - first.low > 5 * (last.high - last.low)


def test_what_two_architectures_share_cancels_in_their_difference():
    def difference(minima):
        return minima[1][1e15].loss - minima[0][1e15].loss

    shared, own = errors(0), errors(1)
    alone = [estimate(lowest, [table(noise)], RESAMPLING) for noise in (shared, own)]
    same = estimate(difference, [table(shared), table(shared)], RESAMPLING)
    apart = estimate(difference, [table(shared), replace(table(own), seed=np.ones(10, dtype=int))], RESAMPLING)
    assert same.high - same.low < 1e-5
    assert (apart.high - apart.low) == pytest.approx(np.hypot(*(one.high - one.low for one in alone)), rel=1e-6)


def test_without_a_run_to_spare_there_is_no_interval():
    three = SIZES[1:4]
    assert estimate(lowest, [table(errors(0, 6), sizes=three)], RESAMPLING).low is None
    assert estimate(lowest, [table(errors(0))], Resampling(0)).low is None
    assert estimate(lowest, [table(errors(0, 8), sizes=SIZES[:4])], RESAMPLING).low is not None


def test_a_run_that_no_parabola_takes_is_no_error():
    wide = np.append(SIZES, 100e6)
    noise = np.append(errors(0).reshape(2, 5), [[0.5], [0.5]], axis=1).ravel()
    narrow, with_outsider = (estimate(lowest, [one], RESAMPLING) for one in (table(errors(0)), table(noise, sizes=wide)))
    assert with_outsider == narrow


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    held = []
    for seed in range(150):
        one = table(errors(seed))
        found = (
            estimate(lowest, [one], RESAMPLING),
            estimate(lambda minima: float(np.log(minima[0][4e15].size)), [one], RESAMPLING),
        )
        held.append([one.low <= truth <= one.high for one, truth in zip(found, (3, np.log(4e6)), strict=True)])
    assert np.mean(held, axis=0) == pytest.approx(0.95, abs=0.05)
