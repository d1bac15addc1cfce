"""Power laws, over-training, the state-optimal law, resampling."""

import inspect

import numpy as np
import pytest
import torch

from archlab.errors import ArchlabError
from archlab.scaling import fits
from archlab.scaling.fits import (
    Frontier,
    PowerLaw,
    Resampling,
    bootstrap,
    fit_over_training,
    fit_power_law,
    fit_state,
    jackknife,
)


def test_a_power_law_and_its_inverse():
    x = np.geomspace(1e3, 1e9, 6)
    law = fit_power_law(x=x, y=7 * x**0.4)
    assert (law.coefficient, law.exponent) == pytest.approx((7, 0.4))
    assert law.inverse(law(123.0)) == pytest.approx(123)


def test_points_count_by_their_precision():
    x = np.array([1.0, 10.0, 100.0])
    law = fit_power_law(x=x, y=[1.0, 10.0, 500.0], sigma=[1e-4, 1e-4, 1.0])
    assert law.exponent == pytest.approx(1, abs=1e-6)
    with pytest.raises(ArchlabError, match="different values of x: 1;"):
        fit_power_law(x=[2, 2], y=[1, 3])


def test_an_over_training_law_is_recovered():
    compute = np.array([1e16, 3e17, 2e18, 2e19, 4e17])
    multiplier = np.array([20.0, 20.0, 20.0, 20.0, 320.0])
    loss = 1.8 + (210 * multiplier**0.14 + 360 * multiplier**-0.14) * compute**-0.14
    found = fit_over_training(C=compute, M=multiplier, loss=loss)
    assert (found.E, found.a, found.b, found.eta) == pytest.approx((1.8, 210, 360, 0.14), rel=1e-4)
    assert found(C=1e21, M=640.0) == pytest.approx(1.8 + (210 * 640**0.14 + 360 * 640**-0.14) * 1e21**-0.14, rel=1e-5)
    with pytest.raises(ArchlabError, match="token multipliers M: 1;"):
        fit_over_training(C=compute, M=np.full(5, 20.0), loss=loss)


def test_architectures_share_the_exponent_of_their_state():
    state = np.array([1e3, 2e3, 4e3, 1e4, 2e4, 4e4])
    group = ["a"] * 3 + ["b"] * 3
    factor = np.repeat([20.0, 50.0], 3)
    found = fit_state(perplexity=factor * state**-0.28, state=state, group=group, resampling=Resampling(50))
    assert found.exponent == pytest.approx(-0.28)
    assert found.offsets == pytest.approx({"a": 20, "b": 50})
    assert found(3e3, "b") == pytest.approx(50 * 3e3**-0.28)
    assert (float(found.interval.low), float(found.interval.high)) == pytest.approx((-0.28, -0.28))
    with pytest.raises(ArchlabError, match="no architecture was measured at two states"):
        fit_state(perplexity=[3, 4], state=[1e3, 2e3], group=["a", "b"])


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


COLUMN = np.arange(1.0, 11.0)


@pytest.mark.parametrize(
    ("columns", "strata", "reason"),
    [
        ((), None, "columns: none are given"),
        ((3.0,), None, r"columns\[0\] has no values, but is a single one"),
        ((COLUMN, COLUMN[:-1]), None, r"columns\[1\] has 9 values, columns\[0\] has 10"),
        ((COLUMN[:-1], COLUMN), None, r"columns\[1\] has 10 values, columns\[0\] has 9"),
        ((np.where(COLUMN == 4, np.nan, COLUMN),), None, r"columns\[0\]\[3\]=nan: leave out"),
        ((np.ma.masked_equal(COLUMN, 4),), None, r"columns\[0\]: some values are masked"),
        (([[1.0], [1.0, 2.0]],), None, r"columns\[0\]: give numbers"),
        ((COLUMN,), COLUMN[:-1], r"strata has 9 labels, columns\[0\] has 10 values"),
        ((COLUMN,), np.arange(11), r"strata has 11 labels, columns\[0\] has 10 values"),
        ((COLUMN,), np.where(COLUMN < 4, np.nan, 1), r"strata\[0\]=nan: leave out"),
        (([1.0, None, 3.0],), None, r"columns\[0\]\[1\]=None: leave out"),
        ((COLUMN,), iter(COLUMN), "strata: give a label for each point"),
        ((COLUMN,), [None] * 10, r"strata\[0\]=None: leave out"),
        ((COLUMN,), 7, "strata: give a label for each point, not 7"),
        ((COLUMN,), np.ones((10, 2)), "strata: give a label for each point"),
    ],
)
def test_columns_that_are_no_runs_are_refused_before_they_are_drawn(columns, strata, reason):
    def unasked(*_):
        raise AssertionError

    with pytest.raises(ArchlabError, match=f"^{reason}"):
        bootstrap(unasked, *columns, strata=strata)
    if strata is None:
        with pytest.raises(ArchlabError, match=f"^{reason}"):
            jackknife(unasked, *columns)


def test_strata_may_be_of_several_types_and_columns_have_rows():
    labels = ["a", 1, "1", ("b",)] * 3
    pairs = np.stack([np.arange(12.0), np.arange(12.0)], axis=1)
    found = bootstrap(lambda rows: rows.mean(axis=0), pairs, strata=labels, resamples=20)
    assert found.low[0] == found.low[1] < found.high[0] == found.high[1]
    assert jackknife(lambda rows: rows.mean(), pairs) == pytest.approx(jackknife(np.mean, pairs[:, 0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, None, [1.0, np.nan]])
def test_a_statistic_that_gives_no_finite_number_has_no_interval(value):
    for method in ("bootstrap", "jackknife"):
        with pytest.raises(ArchlabError, match=r"^the statistic gives (nan|inf)"):
            Resampling(method=method).interval(lambda _: value, COLUMN)


def test_resamples_whose_statistic_is_no_finite_number_count_as_failed():
    found = bootstrap(lambda x: x.mean() if (x == 1).any() else np.nan, COLUMN, resamples=200)
    assert 100 < found.resamples < 180
    assert np.isfinite([found.low, found.high]).all()
    with pytest.raises(ArchlabError, match=r"cannot be fitted \(the statistic gives nan"):
        bootstrap(lambda x: x.mean() if len(np.unique(x)) == 10 else np.nan, COLUMN)


def test_a_statistic_gives_as_many_numbers_each_time():
    for method in (bootstrap, jackknife):
        with pytest.raises(ArchlabError, match="the statistic gives"):
            method(np.unique, np.repeat(COLUMN, [2, *[1] * 9]))
    with pytest.raises(ArchlabError, match="statistic: give numbers, not 'mean'"):
        bootstrap(lambda _: "mean", COLUMN)
    with pytest.raises(ArchlabError, match=r"statistic: give numbers, not \(1\+2j\)"):
        jackknife(lambda _: 1 + 2j, COLUMN)


@pytest.mark.parametrize(
    "option",
    [
        *({"resamples": x} for x in (20.5, 30.0, np.nan, "x", None, True, 19, -1)),
        *({"confidence": x} for x in (0, 1, 95, np.nan, "x", None, True)),
        *({"seed": x} for x in (-1, 1.5, np.nan, "x", None, True)),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(option):
    (name,) = option
    with pytest.raises(ArchlabError, match=f"^{name}="):
        bootstrap(np.mean, COLUMN, **option)
    with pytest.raises(ArchlabError, match=f"^{name}="):
        Resampling(**option)


def test_no_intervals_are_a_choice_of_a_resampling_alone():
    assert Resampling(0).resamples == 0
    with pytest.raises(ArchlabError, match=r"^resamples=False: give a whole number of at least 20, or 0$"):
        Resampling(False)
    with pytest.raises(ArchlabError, match=r"^resamples=0: give a whole number of at least 20$"):
        bootstrap(np.mean, COLUMN, resamples=0)
    assert bootstrap(np.mean, COLUMN, resamples=np.int64(20), seed=np.int64(3)).resamples == 20


@pytest.mark.parametrize("exponent", [0.0, 1e-320, 1e-9, -1e-9])
def test_a_flat_law_has_no_inverse(exponent: float):
    law = PowerLaw(2.0, exponent)
    for y in (3.0, [3.0, 4.0], 1.0):
        with pytest.raises(ArchlabError, match="the law is flat"):
            law.inverse(y)
    with pytest.raises(ArchlabError, match="the law is flat"):
        Frontier(PowerLaw(1, 0.5), PowerLaw(1, 0.5), 1.0, law).flops(4.0)
    if abs(exponent) < 1e-300:
        with pytest.raises(ArchlabError, match="the law is flat"):
            law.inverse(2.0)  # every number gives it


@pytest.mark.parametrize(("y", "told"), [(0.0, "0"), (-1.0, "-1"), (np.nan, "nan"), (np.inf, "inf"), ([1.0, -2.0], "-2")])
def test_a_power_law_reaches_positive_numbers_alone(y, told: str):
    with pytest.raises(ArchlabError, match=f"^y={told}: .*: give a positive number"):
        PowerLaw(2.0, 0.5).inverse(y)


@pytest.mark.parametrize(("loss", "told"), [(np.nan, "nan"), ([2.0, np.nan], "nan"), (1.0, "1"), ([2.0, 0.5], "0.5")])
def test_a_loss_that_no_budget_reaches_is_refused(loss, told: str):
    frontier = Frontier(PowerLaw(1, 0.5), PowerLaw(1, 0.5), 1.0, PowerLaw(10.0, -0.1))
    assert frontier.flops([2.0, 3.0]) == pytest.approx([1e10, 5.0**10])
    with pytest.raises(ArchlabError, match=f"^loss {told}: no budget reaches it"):
        frontier.flops(loss)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 2.0, 10**400], r"x: give numbers, not \[1.0, 2.0, 1000"),
        (torch.tensor([1.0, 2.0, 3.0], requires_grad=True), r"x: give numbers, not tensor\(\[1., 2., 3.\], requires_grad"),
        (np.array([1, 2, 3 + 0j]), "x: give numbers, not array"),
        ([1, 2, 3j], "x: give numbers, not"),
        (np.ma.masked_equal([1.0, 2.0, 3.0], 2), "x: some values are masked"),
        ((value for value in (1, 2, 3)), "x: give numbers, not <generator"),
        (None, "x: give one number a run"),
        (3.0, "x: give one number a run"),
        ([1.0, 1e300, 3.0], r"x\[1\]=1e\+300: fits need positive finite numbers, 1e-100 to 1e\+100"),
        ([[1.0], [2.0, 3.0]], "x: give numbers"),
        ([np.array(["a"]), np.array(["b"])], "x: give numbers, not .* "),
    ],
)
def test_columns_that_are_no_real_numbers_are_refused_in_one_line(values, reason: str):
    with pytest.raises(ArchlabError, match=f"^{reason}") as refused:
        fit_power_law(x=values, y=[1.0, 2.0, 3.0])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_columns_of_other_libraries_are_read():
    plain = fit_power_law(x=[1.0, 2.0, 3.0], y=[1.0, 3.0, 4.0])
    for values in (torch.tensor([1.0, 2.0, 3.0]), np.ma.masked_equal([1.0, 2.0, 3.0], 7), (1, 2, 3)):
        assert fit_power_law(x=values, y=[1.0, 3.0, 4.0]) == plain


@pytest.mark.parametrize("sigma", [1e-300, 1e300, 0.0, np.nan])
def test_a_weight_out_of_range_is_refused(sigma: float):
    with pytest.raises(ArchlabError, match=r"^sigma\[1\]="):
        fit_power_law(x=[1, 2, 3], y=[1, 2, 3], sigma=[1, sigma, 1])


def test_points_that_determine_no_line_are_refused():
    with pytest.raises(ArchlabError, match=r"^sigma: the largest is more than 1e\+10 times the smallest"):
        fit_power_law(x=[1, 2, 3], y=[1, 2, 4], sigma=[1e-11, 1, 1])
    with pytest.raises(ArchlabError, match=r"^x: exponent 2\.\d+e\+17 leaves the range of numbers"):
        fit_power_law(x=[10, 10 + 1e-14], y=[1, 1e90])


@pytest.mark.parametrize("sigma", [1e-9, 1e-6])
def test_a_line_goes_through_a_point_that_outweighs_the_others(sigma: float):
    x, y = np.array([3.0, 50.0, 700.0]), np.array([7.0, 30.0, 40.0])
    from_first = np.log(x / x[0]), np.log(y / y[0])
    expected = (from_first[0] @ from_first[1]) / (from_first[0] @ from_first[0])
    assert fit_power_law(x=x, y=y, sigma=[sigma, 1, 1]).exponent == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (None, "group: give a label for each point, not None"),
        (5, "group: give a label for each point, not 5"),
        (iter("aab"), "group: give a label for each point"),
        (["a", "a"], "group has 2 labels, perplexity has 3 values"),
        (["a", None, "a"], r"group\[1\]=None: leave out"),
        (["a", np.nan, "a"], r"group\[1\]=nan: leave out"),
        (["a", "a", 1], "group: 1 is no name of an architecture: give text"),
    ],
)
def test_points_without_an_architecture_are_refused(group, reason: str):
    with pytest.raises(ArchlabError, match=f"^{reason}"):
        fit_state(perplexity=[3, 4, 5], state=[1e3, 2e3, 4e3], group=group)


def test_an_architecture_that_was_not_fitted_is_not_predicted():
    found = fit_state(perplexity=[3, 4, 5], state=[1e3, 2e3, 4e3], group=np.array(["attention"] * 3), resampling=Resampling(20))
    assert found.interval is not None
    with pytest.raises(ArchlabError, match=r"^unknown architecture of the fit 'atention': did you mean 'attention'\?"):
        found(1e3, "atention")
    with pytest.raises(ArchlabError, match=r"^unknown architecture of the fit 'None': known: attention"):
        found(1e3, None)


@pytest.mark.parametrize("compute", [np.full(7, 1e18), 1e17 * 20 * np.geomspace(1, 64, 7)])
def test_compute_that_is_equal_or_rises_with_the_multiplier_tells_nothing_of_over_training(compute):
    multiplier = 20 * np.geomspace(1, 64, 7)
    loss = 1.8 + (210 * multiplier**0.14 + 360 * multiplier**-0.14) * compute**-0.14
    with pytest.raises(ArchlabError, match=r"C and M: the condition number of their logarithms is 1e\+06, more than 30"):
        fit_over_training(C=compute, M=multiplier, loss=loss)


def test_losses_that_are_all_equal_tell_nothing_of_over_training():
    with pytest.raises(ArchlabError, match=r"^loss: all losses are equal, 2\.5: nothing to fit"):
        fit_over_training(C=COLUMN, M=COLUMN, loss=np.full(10, 2.5))


@pytest.mark.parametrize("unit", [1e-90, 1e90])
def test_the_unit_of_the_loss_does_not_matter_to_over_training(unit: float):
    compute, multiplier = np.array([1e16, 3e17, 2e18, 2e19, 4e17]), np.array([20.0, 20.0, 20.0, 20.0, 320.0])
    loss = 1.8 + (210 * multiplier**0.14 + 360 * multiplier**-0.14) * compute**-0.14
    found = fit_over_training(C=compute, M=multiplier, loss=loss * unit)
    assert (found.E / unit, found.a / unit, found.b / unit, found.eta) == pytest.approx((1.8, 210, 360, 0.14), rel=1e-4)


def test_a_product_of_whole_numbers_that_overflowed_is_named():
    with np.errstate(over="ignore"):
        flops = 6 * np.array([10**9, 10**9]) * np.array([10**10, 2 * 10**10])
    with pytest.raises(
        ArchlabError, match=r"^x\[1\]=-.*: fits .*; the product of whole numbers overflowed: compute it in floats"
    ):
        fit_power_law(x=flops, y=[3.0, 2.0])
    with pytest.raises(ArchlabError, match=r"^x\[0\]=-1\.0: .*leave out"):
        fit_power_law(x=[-1.0, 2.0], y=[3.0, 2.0])


FITS = [fit for name, fit in vars(fits).items() if name in fits.__all__ and inspect.isfunction(fit)]


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
def test_signatures_are_short_and_columns_keyword_only(fit):
    assert len(str(inspect.signature(fit))) < 200
    if fit not in (bootstrap, jackknife):
        assert {p.kind for p in inspect.signature(fit).parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
