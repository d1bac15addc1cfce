"""The parametric law: known laws are recovered, the objectives are what they say, bad data is refused."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scaling.fits.laws import Law

from archlab.errors import ArchlabError
from archlab.scaling.fits import ParametricFit, PowerLaw, fit_parametric, parametric
from archlab.scaling.fits.parametric import HUBER_DELTA, _huber_objective

METHODS = ("huber", "variable-projection", "asymmetric")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("law", [Law(), Law(alpha=0.465, beta=0.155)])
def test_a_law_is_recovered_from_runs_without_noise(method: str, law: Law):
    _, size, tokens, loss = law.study(sizes=7)
    found = fit_parametric(N=size, D=tokens, loss=loss, method=method)
    assert (found.E, found.A, found.B, found.alpha, found.beta) == pytest.approx(
        (law.E, law.A, law.B, law.alpha, law.beta), rel=1e-5
    )
    np.testing.assert_allclose(found(N=size, D=tokens), loss, rtol=1e-6)


@pytest.mark.parametrize("cost", [PowerLaw(6, 1), PowerLaw(40, 0.8)])
@pytest.mark.parametrize("flops", [1e17, 1e23])
def test_the_frontier_is_where_no_other_size_of_the_budget_is_better(cost: PowerLaw, flops: float):
    law = Law()
    fit = ParametricFit(law.E, law.A, law.B, law.alpha, law.beta, 0.0)
    frontier = fit.frontier(cost)
    size, tokens = frontier.size(flops), frontier.tokens(flops)
    assert cost(size) * tokens == pytest.approx(flops)
    assert frontier.loss(flops) == pytest.approx(fit(N=size, D=tokens))
    assert frontier.flops(fit(N=size, D=tokens)) == pytest.approx(flops)
    for other in (0.98 * size, 1.02 * size):
        assert fit(N=size, D=tokens) < fit(N=other, D=flops / cost(other))


def test_a_loss_below_the_floor_and_a_fit_without_a_trade_off_are_refused():
    fit = ParametricFit(1.7, 400, 400, 0.3, 0.3, 0.0)
    with pytest.raises(ArchlabError, match=r"1.5: no budget reaches it .* floor E is 1.7"):
        fit.frontier().flops(1.5)
    with pytest.raises(ArchlabError, match="no effect of data"):
        replace(fit, B=0.0).frontier()


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.5, 3), st.floats(0.2, 0.6), st.floats(0.2, 0.6), st.floats(0.3, 3.0), st.floats(0.3, 3.0),
)  # fmt: skip
def test_other_laws_are_recovered_too(irreducible: float, alpha: float, beta: float, of_size: float, of_data: float):
    # The terms at 1e8 parameters and 2e9 tokens are of the order of the irreducible loss.
    law = Law(irreducible, of_size * 1e8**alpha, of_data * 2e9**beta, alpha, beta)
    size, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(2e8, 2e10, 5)))
    found = fit_parametric(N=size, D=tokens, loss=law.loss(size, tokens), method="variable-projection")
    assert (found.E, found.alpha, found.beta) == pytest.approx((law.E, law.alpha, law.beta), rel=1e-3)


def test_the_gradient_is_that_of_the_objective():
    rng = np.random.default_rng(0)
    log_n, log_d, log_loss = rng.normal(size=(3, 9))
    log_loss[0] += 5  # beyond the quadratic part
    point = np.array([0.3, -0.2, 0.1, 0.4, 0.7])
    value, gradient = _huber_objective(point[:, None], log_n, log_d, log_loss)
    residual = np.log(np.exp(point[0] - 0.4 * log_n) + np.exp(point[1] - 0.7 * log_d) + np.exp(0.1)) - log_loss
    beyond = np.abs(residual) > HUBER_DELTA
    plain = np.where(beyond, HUBER_DELTA * (np.abs(residual) - HUBER_DELTA / 2), residual**2 / 2).sum()
    assert value[0] == pytest.approx(plain)
    for axis in range(5):
        step = np.zeros((5, 1))
        step[axis] = 1e-6
        above, below = (_huber_objective(point[:, None] + s, log_n, log_d, log_loss)[0][0] for s in (step, -step))
        assert gradient[axis, 0] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-9)


def test_outliers_move_the_huber_fit_less_than_least_squares():
    law = Law()
    _, size, tokens, loss = law.study(sizes=9)
    spoiled = loss.copy()
    spoiled[::11] *= 1.3
    huber, squares = (fit_parametric(N=size, D=tokens, loss=spoiled, method=m) for m in ("huber", "variable-projection"))
    assert abs(huber.E - law.E) < 0.02
    assert abs(squares.E - law.E) > 0.1


@pytest.mark.slow
def test_the_asymmetric_loss_punishes_predictions_above_the_loss_most():
    """Losses can only be worse than the law, by bad luck or tuning: the fit stays below those that stick out."""
    law = Law()
    _, size, tokens, loss = law.study(sizes=9)
    for factor, follows in ((1.1, False), (1 / 1.1, True)):
        spoiled = loss.copy()
        spoiled[::3] *= factor
        found = fit_parametric(N=size, D=tokens, loss=spoiled, method="asymmetric")
        residual = np.log(found(N=size, D=tokens) / loss)
        assert (abs(np.median(residual)) > 0.02) == follows, residual


@pytest.mark.slow
def test_resamples_of_the_asymmetric_law_are_those_fitted_alone():
    size, tokens, loss = noisy()
    law = fit_parametric(N=size, D=tokens, loss=loss, method="asymmetric")
    rows = np.random.default_rng(0).integers(len(size), size=(2, len(size)))
    found = parametric.fit_resamples(rows, N=size, D=tokens, loss=loss, method="asymmetric", start=law)
    for row, one in zip(rows, found, strict=True):
        alone = fit_parametric(N=size[row], D=tokens[row], loss=loss[row], method="asymmetric", start=law)
        assert one == alone


def test_a_linear_programme_that_fails_is_no_law(monkeypatch: pytest.MonkeyPatch):
    size, tokens, loss = noisy()
    failed = type("Failed", (), {"success": False, "fun": None, "x": None})
    monkeypatch.setattr(parametric, "linprog", lambda *_, **__: failed)
    with pytest.raises(ArchlabError, match=r"^exponents of a grid: .* take method='huber'"):
        fit_parametric(N=size, D=tokens, loss=loss, method="asymmetric")


def test_a_fit_started_at_a_fit_stays_there():
    rng = np.random.default_rng(1)
    _, size, tokens, loss = Law().study(sizes=7)
    loss *= np.exp(rng.normal(scale=0.01, size=len(loss)))
    for method in METHODS[:2]:
        cold = fit_parametric(N=size, D=tokens, loss=loss, method=method)
        warm = fit_parametric(N=size, D=tokens, loss=loss, method=method, start=cold)
        assert warm.objective == pytest.approx(cold.objective, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n, d, x: (n[:5], d[:5], x[:5]), "different runs: 5; it takes at least 6"),
        (lambda n, d, x: (n, d, x[:-1]), "loss has 34 values, N has 35"),
        (lambda n, d, x: (n, d, np.where(x == x[3], np.nan, x)), r"loss\[3\]=nan: fits need positive finite numbers"),
        (lambda n, d, x: (-n, d, x), r"N\[0\]=-"),
        (lambda n, d, x: (np.full_like(n, 1e8), d, x), "sizes N: 1; it takes at least 3"),
        (lambda n, d, x: (n, np.full_like(d, 1e8), x), "amounts of data D: 1; it takes at least 3"),
        (lambda n, d, x: (n, d, ["many"] * 35), "loss: give numbers"),
        (lambda n, d, x: (n[None], d, x), "N: give one number a run"),
    ],
)
def test_data_that_determines_nothing_is_refused(change, reason: str):
    _, size, tokens, loss = Law().study(sizes=7)
    with pytest.raises(ArchlabError, match=reason):
        fit_parametric(**dict(zip(("N", "D", "loss"), change(size, tokens, loss), strict=True)))


def test_an_unknown_method_is_refused():
    _, size, tokens, loss = Law().study(sizes=7)
    with pytest.raises(ArchlabError, match="method='adam': give one of huber"):
        fit_parametric(N=size, D=tokens, loss=loss, method="adam")


@pytest.mark.parametrize(
    "values",
    [
        {"A": 1e3, "B": np.inf, "alpha": 0.3, "beta": 60.0},
        {"A": np.inf, "B": 1e3, "alpha": 60.0, "beta": 0.3},
        {"A": 1e3, "B": 1e-320, "alpha": 0.3, "beta": 1e-5},
    ],
)
def test_an_exponent_out_of_range_is_refused(values):
    with pytest.raises(ArchlabError, match=r"^the runs do not determine the exponents"):
        ParametricFit(E=1.7, objective=0.0, **values).frontier()


@pytest.mark.parametrize("cost", [PowerLaw(0, 1), PowerLaw(6, 0), PowerLaw(6, -1), PowerLaw(np.nan, 1), PowerLaw(6, np.inf)])
def test_a_cost_that_does_not_grow_with_the_size_is_refused(cost: PowerLaw):
    with pytest.raises(ArchlabError, match=r"^cost=PowerLaw.*: larger models cost more"):
        ParametricFit(1.7, 400, 400, 0.3, 0.3, 0.0).frontier(cost)


def noisy():
    _, size, tokens, loss = Law().study(budgets=4, sizes=5)
    return size, tokens, loss * np.exp(np.random.default_rng(2).normal(scale=0.005, size=len(loss)))


@pytest.mark.parametrize("unit", [1e-12, 1e30])
@pytest.mark.parametrize(("method", "degree"), [("huber", 0), ("variable-projection", 2), ("asymmetric", 1)])
def test_the_unit_of_the_loss_does_not_matter(method: str, degree: int, unit: float):
    size, tokens, loss = noisy()
    plain, other = (fit_parametric(N=size, D=tokens, loss=x, method=method) for x in (loss, loss * unit))
    assert (other.alpha, other.beta) == pytest.approx((plain.alpha, plain.beta), rel=1e-5)
    assert (other.E / unit, other.A / unit, other.B / unit) == pytest.approx((plain.E, plain.A, plain.B), rel=1e-5)
    assert other.objective / unit**degree == pytest.approx(plain.objective)


@pytest.mark.parametrize("method", METHODS)
def test_losses_that_are_all_equal_have_no_law(method: str):
    size, tokens, _ = noisy()
    for loss in (np.full(len(size), 2.5), 2.5 * (1 + 1e-15 * np.arange(len(size)))):
        with pytest.raises(ArchlabError, match=r"^loss: all losses are equal, 2\.5: nothing to fit"):
            fit_parametric(N=size, D=tokens, loss=loss, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change",
    [{x: y} for x in ("E", "A", "B", "alpha", "beta") for y in (np.nan, np.inf, -0.1)] + [{"alpha": 0.0}, {"beta": 1e308}],
)
def test_a_start_that_is_no_law_is_refused(method: str, change):
    size, tokens, loss = noisy()
    ((name, value),) = change.items()
    with pytest.raises(ArchlabError, match=rf"^start\.{name}={re.escape(str(value))}: .*: begin at another fit"):
        fit_parametric(
            N=size, D=tokens, loss=loss, method=method, start=ParametricFit(**vars(Law()) | {"objective": 0.0} | change)
        )


def test_a_start_beyond_what_can_be_computed_is_refused():
    size, tokens, loss = noisy()
    start = ParametricFit(1.7, 400, 400, 1000.0, 0.3, 0.0)
    with pytest.raises(ArchlabError, match=r"^exponents alpha 1e\+03, beta 0.3 of start: .*: begin at another fit"):
        fit_parametric(N=size, D=tokens, loss=loss, method="variable-projection", start=start)


@pytest.mark.parametrize(
    ("tokens", "fix"),
    [
        (lambda size: 20 * size, "tokens rise with the size: add runs of the same sizes on more or fewer tokens"),
        (lambda size: 1e18 / 6 / size, "all runs take about the same compute: add another budget"),
    ],
)
def test_sizes_and_tokens_on_one_line_are_refused_with_what_to_add(tokens, fix):
    size = np.geomspace(1e7, 1e9, 12)
    loss = 1.7 + 400 / size**0.34 + 410 / tokens(size) ** 0.28
    with pytest.raises(ArchlabError, match=r"condition number of their logarithms is .*, more than 30, .*" + fix):
        fit_parametric(N=size, D=tokens(size), loss=loss)


@pytest.mark.parametrize(("alpha", "beta"), [(73.2, 0.3), (0.3, 5.0)])
def test_a_law_with_impossible_exponents_has_no_frontier(alpha, beta):
    with pytest.raises(ArchlabError, match="do not determine the exponents"):
        ParametricFit(1.0, 3e61, 400.0, alpha, beta, 0.1).frontier()
