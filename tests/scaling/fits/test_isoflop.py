"""Approach 2: known minima, its known bias, groups that are not bracketed."""

import re

import numpy as np
import pytest
from tests.scaling.fits.laws import Law

from archlab.errors import ArchlabError
from archlab.scaling.fits import fit_isoflop, isoflop_minimum


@pytest.mark.parametrize(("law", "biased"), [(Law(), -0.578092), (Law(alpha=0.465, beta=0.155), -1.459957)])
def test_the_exponent_is_exact_and_a_wide_grid_biases_the_intercept(law: Law, biased: float):
    flops, size, tokens, loss = law.study()
    wide = fit_isoflop(C=flops, N=size, loss=loss, D=tokens, window=np.inf)
    assert wide.tokens_law.exponent == pytest.approx(1 - law.size_exponent, abs=1e-9)
    assert np.log10(wide.tokens_law.coefficient) == pytest.approx(biased, abs=1e-6)
    assert all(minimum.wide > 8 for minimum in wide.minima)
    true = np.log10(6 ** -(1 - law.size_exponent) / law.size_factor)
    narrow = fit_isoflop(C=flops, N=size, loss=loss)
    assert abs(np.log10(narrow.tokens_law.coefficient) - true) < 0.7 * abs(biased - true)


def test_a_parabola_in_log_size_is_found_exactly():
    size = np.tile(np.geomspace(1e6, 1e8, 9), 3)
    flops = np.repeat([1e15, 4e15, 1.6e16], 9)
    best = 4e6 * (flops / 1e15) ** 0.6
    loss = 3 - 0.1 * np.log(flops / 1e15) + 0.05 * np.log(size / best) ** 2
    fit = fit_isoflop(C=flops * np.tile([1, 1.01, 0.99], 9), N=size, loss=loss, D=flops / (4 * size))
    assert [m.flops for m in fit.minima] == pytest.approx([1e15, 4e15, 1.6e16], rel=0.011)
    assert [m.size for m in fit.minima] == pytest.approx([4e6, 4e6 * 4**0.6, 4e6 * 16**0.6])
    assert [m.loss for m in fit.minima] == pytest.approx([3, 3 - 0.1 * np.log(4), 3 - 0.1 * np.log(16)])
    assert [m.tokens * m.size * 4 for m in fit.minima] == pytest.approx([1e15, 4e15, 1.6e16])
    assert fit.refused == {}


def test_one_run_that_went_wrong_moves_a_minimum_little():
    flops, size, _, loss = Law().study(budgets=2, sizes=11, reach=6)
    spoiled = loss.copy()
    spoiled[8] += 0.5
    clean, dirty = (fit_isoflop(C=flops, N=size, loss=x).minima[0].size for x in (loss, spoiled))
    assert dirty == pytest.approx(clean, rel=0.1)


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (slice(0, 7), "the largest size is the best: not bracketed"),
        (slice(8, 15), "the smallest size is the best: not bracketed"),
        (slice(7, 9), "fewer than 3 sizes; a parabola takes at least 3"),
    ],
)
def test_a_group_without_a_minimum_is_refused_with_what_to_add(keep: slice, reason: str):
    flops, size, _, loss = (column.reshape(5, 15) for column in Law().study())
    columns = {"C": flops, "N": size, "loss": loss}
    fit = fit_isoflop(**{name: np.concatenate([x[:3].ravel(), x[3, keep]]) for name, x in columns.items()})
    assert len(fit.minima) == 3
    assert list(fit.refused) == [flops[3, 0]]
    assert str(fit.refused[flops[3, 0]]).startswith(reason)
    if "bracketed" in reason:
        assert re.search("; add sizes from .* to .* parameters$", str(fit.refused[flops[3, 0]]))
    with pytest.raises(ArchlabError, match=f"1 of 2 budgets have a minimum, two are needed: .*{reason}.* \\(in 1\\)"):
        fit_isoflop(**{name: np.concatenate([x[0], x[3, keep]]) for name, x in columns.items()})


def test_of_sizes_that_are_equally_good_the_middle_one_is_the_best():
    sizes, losses = np.array([1e6, 2e6, 4e6, 8e6, 1.6e7]), np.array([3.0, 3.0, 3.0, 3.1, 3.2])
    for order in (slice(None), slice(None, None, -1)):
        assert 1e6 < isoflop_minimum(flops=1e17, N=sizes[order], D=1e17 / sizes[order], loss=losses[order]).size < 4e6


def test_runs_on_one_side_only_are_warned_of():
    flops, size, _, loss = (column.reshape(5, 15) for column in Law().study())
    fit = fit_isoflop(C=flops[:, 6:].ravel(), N=size[:, 6:].ravel(), loss=loss[:, 6:].ravel())
    assert {minimum.short for minimum in fit.minima} == {"below"}


def test_three_sizes_that_a_bootstrap_drew_twice_are_fitted_as_three():
    size, loss = np.repeat([1e6, 2e6, 4e6], 2), np.repeat([2.1, 2.0, 2.2], 2)
    twice = isoflop_minimum(flops=1e15, N=size, D=1e15 / 6 / size, loss=loss)
    once = isoflop_minimum(flops=1e15, N=size[::2], D=1e15 / 6 / size[::2], loss=loss[::2])
    assert twice.size == pytest.approx(once.size)


def test_the_three_sizes_next_to_the_minimum_may_lie_outside_the_window_and_come_several_times():
    size, loss = np.repeat([1e6, 1e7, 1e8], 3), np.repeat([2.1, 2.0, 2.2], 3)
    found = isoflop_minimum(flops=1e15, N=size, D=1e15 / 6 / size, loss=loss, window=2.0)
    assert found.runs == 9
    assert 1e6 < found.size < 1e8


SIZE, LOSS = [1e6, 2e6, 4e6, 8e6], [2.2, 2.0, 2.1, 2.4]
TOKENS = [1e9, 5e8, 2.5e8, 1.25e8]


def test_a_minimum_of_lists_is_that_of_arrays():
    columns = {"N": SIZE, "D": TOKENS, "loss": LOSS}
    arrays = {name: np.array(column) for name, column in columns.items()}
    assert isoflop_minimum(flops=1e16, **columns) == isoflop_minimum(flops=1e16, **arrays)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"N": [-1e6, 2e6, 4e6, 8e6]}, r"N\[0\]=-1000000.0: fits need positive finite numbers"),
        ({"loss": [2.2, np.nan, 2.1, 2.4]}, r"loss\[1\]=nan"),
        ({"D": TOKENS[:2]}, "D has 2 values, N has 4"),
        ({"flops": 0.0}, r"flops\[0\]=0.0"),
        ({"flops": "many"}, "flops: give numbers"),
        ({"loss": [2.0] * 4}, "budget 1e.16: all losses are equal: nothing to fit"),
        *(({"window": x}, "window=.*: give a factor above 1") for x in (0, -1, 1, 0.5, np.nan, "x", None)),
    ],
)
def test_runs_that_are_no_group_are_refused(change, reason: str):
    given = {"flops": 1e16, "N": SIZE, "D": TOKENS, "loss": LOSS} | change
    with pytest.raises(ArchlabError, match=f"^{reason}"):
        isoflop_minimum(**given)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *(({"window": x}, "window=.*: give a factor above 1") for x in (0, -1, 0.5, np.nan)),
        ({"D": [1e9, 2e9]}, "D has 2 values, C has 75"),
    ],
)
def test_what_concerns_all_groups_is_refused_once(change, reason: str):
    flops, size, _, loss = Law().study()
    with pytest.raises(ArchlabError, match=f"^{reason}"):
        fit_isoflop(C=flops, N=size, loss=loss, **change)


def test_no_runs_have_no_minimum():
    with pytest.raises(ArchlabError, match=r"^runs: 0; it takes at least 1"):
        fit_isoflop(C=[], N=[], loss=[])


@pytest.mark.parametrize("unit", [1e-90, 1e90])
def test_the_unit_of_the_loss_does_not_matter(unit: float):
    flops, size, _, loss = Law().study()
    plain, other = fit_isoflop(C=flops, N=size, loss=loss), fit_isoflop(C=flops, N=size, loss=loss * unit)
    assert [m.size for m in other.minima] == pytest.approx([m.size for m in plain.minima])
    assert [m.loss / unit for m in other.minima] == pytest.approx([m.loss for m in plain.minima])
