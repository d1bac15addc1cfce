"""Fits of many samples at once reach the optima of the fits one by one."""

import numpy as np
import pytest
from tests.scaling.fits.laws import Law

from archlab.scaling.fits import fit_parametric
from archlab.scaling.fits.parametric import fit_resamples


@pytest.mark.parametrize("method", ["huber", "variable-projection"])
@pytest.mark.parametrize(("budgets", "sizes", "noise"), [(3, 5, 0.005), (5, 7, 0.002), (8, 30, 0.005)])
def test_resamples_fitted_together_have_the_optima_of_those_fitted_alone(method, budgets, sizes, noise):
    _, size, tokens, loss = Law().study(budgets, sizes, 4.0)
    rng = np.random.default_rng(0)
    loss = loss * np.exp(noise * rng.normal(size=len(loss)))
    start = fit_parametric(N=size, D=tokens, loss=loss, method=method)
    rows = rng.integers(0, len(size), (12, len(size)))
    for row, found in zip(rows, fit_resamples(rows, N=size, D=tokens, loss=loss, method=method, start=start), strict=True):
        alone = fit_parametric(N=size[row], D=tokens[row], loss=loss[row], method=method, start=start)
        assert found.objective <= alone.objective * (1 + 1e-6)
        assert (found.alpha, found.beta) == pytest.approx((alone.alpha, alone.beta), abs=1e-4)


def test_a_resample_that_cannot_be_fitted_has_no_fit():
    _, size, tokens, loss = Law().study(3, 5, 4.0)
    start = fit_parametric(N=size, D=tokens, loss=loss)
    rows = np.stack([np.zeros(15, int), np.arange(15)])
    one_run, all_runs = fit_resamples(rows, N=size, D=tokens, loss=loss, method="huber", start=start)
    assert one_run is None
    assert all_runs.alpha == pytest.approx(start.alpha, rel=1e-3)
