"""Power laws, over-training, the state-optimal law, resampling."""

import numpy as np
import pytest

from archlab.errors import ArchlabError
from archlab.scaling.fits import Resampling, bootstrap, fit_over_training, fit_power_law, fit_state, jackknife


def test_a_power_law_and_its_inverse():
    x = np.geomspace(1e3, 1e9, 6)
    law = fit_power_law(x, 7 * x**0.4)
    assert (law.coefficient, law.exponent) == pytest.approx((7, 0.4))
    assert law.inverse(law(123.0)) == pytest.approx(123)


def test_points_count_by_their_precision():
    x = np.array([1.0, 10.0, 100.0])
    law = fit_power_law(x, [1.0, 10.0, 500.0], sigma=[1e-4, 1e-4, 1.0])
    assert law.exponent == pytest.approx(1, abs=1e-6)
    with pytest.raises(ArchlabError, match="different values of x: 1;"):
        fit_power_law([2, 2], [1, 3])


def test_an_over_training_law_is_recovered():
    compute = np.array([1e16, 3e17, 2e18, 2e19, 4e17])
    multiplier = np.array([20.0, 20.0, 20.0, 20.0, 320.0])
    loss = 1.8 + (210 * multiplier**0.14 + 360 * multiplier**-0.14) * compute**-0.14
    found = fit_over_training(compute, multiplier, loss)
    assert (found.E, found.a, found.b, found.eta) == pytest.approx((1.8, 210, 360, 0.14), rel=1e-4)
    assert found(1e21, 640.0) == pytest.approx(1.8 + (210 * 640**0.14 + 360 * 640**-0.14) * 1e21**-0.14, rel=1e-5)
    with pytest.raises(ArchlabError, match="token multipliers M: 1;"):
        fit_over_training(compute, np.full(5, 20.0), loss)


def test_architectures_share_the_exponent_of_their_state():
    state = np.array([1e3, 2e3, 4e3, 1e4, 2e4, 4e4])
    group = ["a"] * 3 + ["b"] * 3
    factor = np.repeat([20.0, 50.0], 3)
    found = fit_state(factor * state**-0.28, state, group, Resampling(50))
    assert found.exponent == pytest.approx(-0.28)
    assert found.offsets == pytest.approx({"a": 20, "b": 50})
    assert found(3e3, "b") == pytest.approx(50 * 3e3**-0.28)
    assert (float(found.interval.low), float(found.interval.high)) == pytest.approx((-0.28, -0.28))
    with pytest.raises(ArchlabError, match="no architecture was measured at two states"):
        fit_state([3, 4], [1e3, 2e3], ["a", "b"])


def test_bootstrap_and_jackknife_of_a_mean():
    values = np.random.default_rng(0).normal(5, 2, size=200)
    interval = bootstrap(np.mean, values, resamples=2000, confidence=0.9)
    error = values.std(ddof=1) / np.sqrt(200)
    assert float(interval.low) == pytest.approx(values.mean() - 1.645 * error, abs=0.15 * error)
    assert float(interval.high) == pytest.approx(values.mean() + 1.645 * error, abs=0.15 * error)
    assert float(jackknife(np.mean, values)) == pytest.approx(error)
    interval = Resampling(confidence=0.9, method="jackknife").interval(np.mean, values)
    assert float(interval.high - interval.low) == pytest.approx(2 * 1.6525 * error, rel=1e-3)  # Student's, 199 degrees of freedom
    assert float(interval.high + interval.low) == pytest.approx(2 * values.mean())


def test_strata_of_few_runs_widen_the_bootstrap():
    rng, strata, widths = np.random.default_rng(0), np.repeat(range(10), 4), []
    for seed in range(50):
        interval = bootstrap(np.mean, rng.normal(size=40), strata=strata, resamples=200, seed=seed)
        widths.append(float(interval.high - interval.low))
    assert np.mean(widths) == pytest.approx(2 * 1.96 / np.sqrt(40), rel=0.08)  # sqrt(3 / 4) of it were it not widened


def test_strata_keep_their_number_of_runs():
    labels = np.repeat([1, 2], [3, 5])
    counts = bootstrap(lambda drawn: [(drawn == 1).sum(), (drawn == 2).sum()], labels, strata=labels, resamples=30)
    assert counts.low.tolist() == counts.high.tolist() == [3, 5]


def test_a_statistic_that_cannot_be_computed_is_said_so():
    def refuse(values):
        if len(np.unique(values)) < 3:
            raise ArchlabError("too few")
        return values.mean()

    with pytest.raises(ArchlabError, match=r"of 40 resamples cannot be fitted \(too few\): add runs"):
        bootstrap(refuse, [1.0, 2.0, 3.0], resamples=40)
    with pytest.raises(ArchlabError, match=r"^runs: 3; it takes at least 4 for as many strata"):
        bootstrap(np.mean, [1.0, 2.0, 3.0], strata=["a", "b", "c"])
    with pytest.raises(ArchlabError, match="confidence=95"):
        bootstrap(np.mean, [1.0, 2.0], confidence=95)
