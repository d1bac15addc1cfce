"""Approach 1: known laws come back from curves of trainings, what no curve brackets does not count."""

import numpy as np
import pytest
from tests.scaling.fits.laws import Law

from archlab.errors import ArchlabError
from archlab.scaling.fits import fit_envelope

LAW = Law()


def curves(sizes, ends, law=LAW, points=60):
    """Labels, FLOPs, sizes, tokens and losses along trainings that follow the law from the first step on."""
    shares = np.geomspace(1e-3, 1, points)
    size = np.repeat(sizes, points)
    flops = np.outer(np.broadcast_to(ends, len(sizes)), shares).ravel()
    tokens = flops / 6 / size
    return [str(i) for i in range(len(sizes)) for _ in shares], flops, size, tokens, law.loss(size, tokens)


@pytest.mark.parametrize("law", [LAW, Law(alpha=0.465, beta=0.155)])
def test_the_exponents_of_a_law_come_back_from_its_curves(law: Law):
    label, flops, size, tokens, loss = curves(law.size_factor * np.geomspace(1e16, 1e20, 31) ** law.size_exponent, 1e20, law)
    fit = fit_envelope(curve=label, C=flops, N=size, loss=loss, D=tokens, since=0)
    assert fit.size_law.exponent == pytest.approx(law.size_exponent, abs=0.01)
    assert fit.tokens_law.exponent == pytest.approx(1 - law.size_exponent, abs=0.01)
    assert fit.size_law(1e19) == pytest.approx(law.size_factor * (1e19 / 6) ** law.size_exponent, rel=0.05)
    assert fit.frontier().loss(1e19) == pytest.approx(law.loss(fit.size_law(1e19), fit.tokens_law(1e19)), rel=0.02)
    without = fit_envelope(curve=label, C=flops, N=size, loss=loss, since=0)
    assert without.tokens == pytest.approx(fit.tokens)


@pytest.mark.parametrize("sizes", [4, 5, 6, 7])
def test_steps_between_the_sizes_do_not_bend_the_exponent(sizes: int):
    """Budgets and sizes of a ladder: the lowest curve alone is off by up to 0.08 here."""
    studies = []
    for budget in (1e18, 2.5e18, 6e18):
        best = LAW.size_factor * (budget / 6) ** LAW.size_exponent
        studies.append(curves(best * 2.0 ** (np.arange(sizes) - (sizes - 1) / 2), budget))
    label = [f"{n} {one}" for n, study in enumerate(studies) for one in study[0]]
    flops, size, tokens, loss = (np.concatenate(column) for column in list(zip(*studies, strict=True))[1:])
    group = [one[0] for one in label]
    for compared in (None, group):
        fit = fit_envelope(curve=label, C=flops, N=size, loss=loss, D=tokens, group=compared)
        assert fit.size_law.exponent == pytest.approx(LAW.size_exponent, abs=0.005)
        assert fit.tokens_law.exponent == pytest.approx(1 - LAW.size_exponent, abs=0.005)
        assert fit.size_law(6e18) == pytest.approx(LAW.size_factor * 1e18**LAW.size_exponent, rel=0.02)


def test_trainings_of_a_group_are_compared_with_each_other_only():
    """The longer trainings are further from their decay: a loss that is higher all along them says nothing of their sizes."""
    short, long = (curves(np.geomspace(2e7, 6e8, 9), end) for end in (1e19, 3e19))
    label = [*short[0], *(f"long {one}" for one in long[0])]
    flops, size, tokens, loss = (np.concatenate(column) for column in list(zip(short, long, strict=True))[1:])
    group = ["short"] * len(short[0]) + ["long"] * len(long[0])
    raised = np.where(np.array(group) == "long", loss + 0.1, loss)
    laws = [fit_envelope(curve=label, C=flops, N=size, loss=x, D=tokens, group=group).size_law for x in (loss, raised)]
    assert laws[0] == pytest.approx(laws[1])
    assert laws[0].exponent == pytest.approx(LAW.size_exponent, abs=0.005)


def test_the_minimum_is_just_below_the_lowest_curve():
    label, flops, size, tokens, loss = curves(np.geomspace(1e7, 1e9, 9), np.geomspace(1e18, 1e19, 9))
    fit = fit_envelope(curve=label, C=flops, N=size, loss=loss, D=tokens, since=0)
    for c, n, d, value in zip(fit.flops, fit.size, fit.tokens, fit.loss, strict=True):
        reach = [LAW.loss(m, c / 6 / m) for m, end in zip(size[::60], flops[59::60], strict=True) if c <= end]
        assert 0.995 * min(reach) < value <= min(reach) * 1.001
        assert (n * d * 6, value) == pytest.approx((c, LAW.loss(n, d)), rel=2e-3)


def test_where_the_best_size_is_the_smallest_or_largest_on_offer_nothing_is_learnt():
    best = LAW.size_factor * (1e17 / 6) ** LAW.size_exponent
    with pytest.raises(ArchlabError, match=r"sizes that are best .* between smaller and larger ones: 0; it takes at least 2"):
        fit_envelope(**_without_tokens(curves(best * np.geomspace(10, 100, 9), 1e17)))


def test_a_warm_up_does_not_count():
    label, flops, size, tokens, loss = curves(np.geomspace(2e7, 6e8, 13), 1e19)
    early = flops < 0.9e18
    spoiled = np.where(early & (size == size[0]), 0.1, loss)
    counted = fit_envelope(curve=label, C=flops, N=size, loss=spoiled, D=tokens)
    assert min(counted.flops) >= 0.9e18
    assert counted == fit_envelope(curve=label, C=flops, N=size, loss=loss, D=tokens)


def _without_tokens(columns):
    label, flops, size, _, loss = columns
    return {"curve": label, "C": flops, "N": size, "loss": loss}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda curve, **_: {"curve": curve[:-1]}, "curve has 539 labels, C has 540 values"),
        (lambda C, N, **_: {"N": np.where(C[3] == C, 7.0, N)}, r"N\[3\]=7: .*does not change"),  # noqa: N803
        (lambda loss, **_: {"loss": -loss}, r"loss\[0\]=-"),
    ],
)
def test_points_that_make_no_curves_are_refused(change, reason):
    columns = _without_tokens(curves(np.geomspace(1e7, 1e9, 9), np.geomspace(1e18, 2e18, 9)))
    with pytest.raises(ArchlabError, match=reason):
        fit_envelope(**columns | change(**columns))
    with pytest.raises(ArchlabError, match="since=1"):
        fit_envelope(curve=[], C=[], N=[], loss=[], since=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"curve": None}, "curve: give a label for each point, not None"),
        ({"curve": 3}, "curve: give a label for each point, not 3"),
        ({"curve": iter("abc")}, "curve: give a label for each point"),
        ({"curve": ["a", None, "b"]}, r"curve\[1\]=None: leave out points without a label"),
        ({"group": [1, 1, np.nan]}, r"group\[2\]=nan: leave out points without a label"),
        ({"group": "a"}, "group has 1 labels, C has 3 values"),
        ({"C": None}, "C: give one number a run"),
        ({"C": 3.0}, "C: give one number a run"),
        ({"C": iter([1, 2, 3])}, "C: give numbers, not"),
        ({"N": [1, np.nan, 3]}, r"N\[1\]=nan"),
        ({"D": [1]}, "D has 1 values, C has 3"),
        *(({"since": x}, "since=.*: must be at least 0 and below 1") for x in ("a", None, np.nan, True, -0.1)),
    ],
)
def test_columns_and_options_that_are_none_are_refused(change, reason):
    given = {"curve": ["a", "b", "c"], "C": [1, 2, 3], "N": [1, 2, 3], "loss": [3, 2, 1]} | change
    with pytest.raises(ArchlabError, match=f"^{reason}"):
        fit_envelope(**given)
