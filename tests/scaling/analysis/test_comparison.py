"""Comparisons of architectures: a known difference comes back, and what two ladders share does not blur it."""

from dataclasses import replace

import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder, result

from archlab.scaling.analysis.comparison import compare, compare_with_best, state_law
from archlab.scaling.fits import Resampling
from archlab.scaling.laws import fit_laws
from archlab.scaling.store import StudyStore
from archlab.scaling.study import read_study

FEW = Resampling(24)
NONE = Resampling(0)
LAW = Law()
WORSE = replace(LAW, A=LAW.A * 1.2, B=LAW.B * 1.2)


@pytest.fixture
def tables(tmp_path):
    def made(*trainings):
        with StudyStore(fill(tmp_path / "archlab.db", [one for some in trainings for one in some])) as store:
            return list(read_study(store.records()).tables.values())

    return made


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_better_architecture_is_better_by_what_it_is(tables, seeds):
    good, bad = tables(*(ladder(label, law, seeds=seeds, noise=0.002) for label, law in (("good", LAW), ("bad", WORSE))))
    found = compare(good, bad, FEW)
    assert [c.budget for c in found] == list(BUDGETS)
    for c in found:
        size = LAW.size_factor * (c.budget / 6) ** LAW.size_exponent
        gap = 0.2 * (LAW.loss(size, c.budget / 6 / size) - LAW.E)
        assert c.difference.value == pytest.approx(gap, abs=0.01)
        # the noise of a size index and seed is the same on both sides here: pairs cancel all but the tilt of the parabolas
        assert 0 < c.difference.high - c.difference.low < 0.002
        assert c.difference.low < c.difference.value < c.difference.high
        assert c.multiplier.low < c.multiplier.value < c.multiplier.high
        assert c.multiplier.value > 1.5
    (back, *_) = compare(bad, good, NONE)
    assert back.difference.value == pytest.approx(-found[0].difference.value)
    assert back.difference.low is None
    assert back.multiplier.value < 1 / 1.5
    assert back.multiplier.low is None


def test_against_minima_that_do_not_fall_there_is_no_multiplier(tables):
    rising = [
        (one, replace(outcome, loss=outcome.loss + 0.3 * BUDGETS.index(one.run.budget))) for one, outcome in ladder("up", LAW)
    ]
    falling, up = tables(ladder("down", LAW), rising)
    assert [c.multiplier for c in compare(falling, up, FEW)] == [None] * 4
    assert all(c.multiplier.value < 1 for c in compare(up, falling, FEW)[1:])


def test_equally_good_sizes_at_an_end_have_their_difference(tables):
    def tied(label):
        return [
            (one, replace(outcome, loss=2.0 + max(0.1 * (5 - place % 7), 0.0)))
            for place, (one, outcome) in enumerate(ladder(label, LAW))
        ]

    for c in compare(*tables(tied("a"), tied("b")), FEW):
        assert c.difference.value == 0
        assert c.difference.low <= 0 <= c.difference.high


def test_one_budget_is_enough_for_a_difference_but_not_for_a_multiplier(tables):
    good, bad = tables(*(ladder(label, law, budgets=BUDGETS[:1]) for label, law in (("good", LAW), ("bad", WORSE))))
    (found,) = compare(good, bad, FEW)
    assert found.difference.low < found.difference.value
    assert found.multiplier is None


def test_runs_are_paired_by_size_index_even_if_some_were_censored(tables):
    noisy = ladder("b", LAW, noise=0.01)
    holed = [(one, result(None) if place == 1 else outcome) for place, (one, outcome) in enumerate(noisy)]
    whole, of_noise = tables(ladder("a", LAW, noise=0.01), holed)
    (first, *_, last) = compare(whole, of_noise, FEW)
    assert first.difference.value == pytest.approx(0, abs=0.02)
    assert last.difference.value == 0
    # only a pairing by size index sees that the errors of both are the same
    assert last.difference.high - last.difference.low < 0.01


def test_the_state_law_has_one_slope_over_architectures(tables):
    law = state_law([fit_laws(table, NONE) for table in tables(ladder("a", LAW), ladder("b", replace(LAW, A=500)))], FEW)
    assert law.exponent < 0
    assert law.offsets.keys() == {"a", "b"}
    assert law.offsets["b"] > law.offsets["a"]
    assert law.interval.low < law.exponent < law.interval.high


def test_a_state_law_needs_no_interval(tables):
    law = state_law([fit_laws(table, NONE) for table in tables(ladder("a", LAW), ladder("b", replace(LAW, A=500)))], NONE)
    assert law.exponent < 0
    assert law.interval is None


def test_the_best_is_compared_with_every_other_at_the_largest_budget_that_several_share(tables):
    worst, middle, good = tables(
        *(
            ladder(label, replace(LAW, A=LAW.A * factor, B=LAW.B * factor), budgets=budgets)
            for label, factor, budgets in (("worst", 1.4, BUDGETS[:3]), ("middle", 1.2, BUDGETS), ("good", 1, BUDGETS[:3]))
        )
    )
    found = compare_with_best([worst, middle, good], NONE)
    assert [(c.first, c.second, c.budget) for c in found] == [("good", "middle", BUDGETS[2]), ("good", "worst", BUDGETS[2])]
    assert [c.multiplier.value > 1 for c in found] == [True, True]
    assert found[1] == compare(good, worst, NONE)[-1]
    assert compare_with_best([good], NONE) == []
