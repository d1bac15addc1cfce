"""Statistics of ranks against independent formulas, and intervals that hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from archlab.designs.rank_statistics import (
    ordered_pairs,
    partial_tau,
    power,
    reliability,
    tau_b,
    tau_interval,
)

columns = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12)


@given(columns)
def test_tau_is_that_of_scipy_with_ties(rows):
    x, y = np.array(rows, dtype=float).T
    expected = stats.kendalltau(x, y).statistic
    assert float(tau_b(x, y)) == pytest.approx(expected, nan_ok=True)


def test_pairs_within_their_noise_are_tied():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    assert ordered_pairs(x, y) == (2, 1, 0)
    noise = 0.01 * np.random.default_rng(0).standard_normal((500, 3))
    assert ordered_pairs(x, y, y_draws=y + noise) == (2, 1, 0)
    assert ordered_pairs(x, y, y_draws=y + 100 * noise * [0, 1, 1]) == (1, 0, 2)
    assert ordered_pairs(np.array([1.0, 1.0, 2.0]), y).tied == 1


def _sample(rng: np.random.Generator, n: int, tau: float) -> tuple[np.ndarray, np.ndarray]:
    x, noise = rng.standard_normal((2, n))
    correlation = np.sin(np.pi * tau / 2)
    return x, correlation * x + np.sqrt(1 - correlation**2) * noise


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 9, 14, 21])
@pytest.mark.parametrize("tau", [0.0, 0.6, 0.9])
def test_intervals_hold_the_true_tau(n: int, tau: float):
    rng = np.random.default_rng(n)
    held = []
    for _ in range(120):
        interval = tau_interval(*_sample(rng, n, tau))
        held.append(interval.low - 1e-9 <= tau <= interval.high + 1e-9)
    assert np.mean(held) >= 0.91


def test_an_interval_of_perfect_agreement_is_not_a_point():
    interval = tau_interval(np.arange(5.0), np.arange(5.0))
    assert interval.high == 1
    assert 0 < interval.low < 0.5
    assert tau_interval(np.arange(3.0), np.arange(3.0)) is None


def test_noise_widens_the_interval_around_the_same_tau():
    rng = np.random.default_rng(3)
    x, y = _sample(rng, 14, 0.7)
    plain = tau_interval(x, y)
    noisy = tau_interval(x, y, x + 0.5 * rng.standard_normal((500, 14)))
    assert noisy.high - noisy.low > plain.high - plain.low
    assert noisy.low < plain.low < float(tau_b(x, y)) <= noisy.high


def test_few_architectures_have_little_power():
    assert power(5) < 0.3
    assert 0.8 < power(14) < 0.95
    assert power(21) > 0.97
    assert power(9, 0.0) <= 0.06


def test_a_partial_tau_leaves_out_what_a_third_column_explains():
    rng = np.random.default_rng(0)
    cause = rng.standard_normal(300)
    x, y = cause + 0.5 * rng.standard_normal(300), cause + 0.5 * rng.standard_normal(300)
    assert float(tau_b(x, y)) > 0.45
    assert abs(partial_tau(x, y, [cause])) < 0.3
    # One column given: Kendall's formula.
    xy, xz, yz = (float(tau_b(*pair)) for pair in ((x, y), (x, cause), (y, cause)))
    assert partial_tau(x, y, [cause]) == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert partial_tau(x, y, [x]) is None


def test_reliability_is_the_fraction_that_is_not_noise():
    rng = np.random.default_rng(0)
    truth = 2 * rng.standard_normal(4000)
    values = truth + rng.standard_normal(4000)
    draws = values + rng.standard_normal((50, 4000))
    assert reliability(values, draws) == pytest.approx(0.8, abs=0.03)
    assert reliability(values, None) is None
