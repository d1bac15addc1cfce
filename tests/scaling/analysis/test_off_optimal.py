"""What another size than the best costs: known gaps and laws come back."""

import numpy as np
import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder

from archlab.scaling.analysis.off_optimal import OverTraining, off_optimal_gaps, over_training
from archlab.scaling.fits import Resampling
from archlab.scaling.store import StudyStore
from archlab.scaling.study import read_study

LAW = Law()


@pytest.fixture
def family(tmp_path):
    def made(**values):
        with StudyStore(fill(tmp_path / "archlab.db", ladder("a", values.pop("law", LAW), **values))) as store:
            return read_study(store.records()).tables["a"]

    return made


def test_the_gap_is_what_the_law_loses_at_a_smaller_size(family):
    gaps = off_optimal_gaps(family(seeds=2, noise=0.001), Resampling(24))
    assert [(gap.budget, gap.share) for gap in gaps] == [(budget, share) for budget in BUDGETS for share in (0.5, 0.25)]
    for gap in gaps:
        pair = gap.budget / 6
        best = LAW.size_factor * pair**LAW.size_exponent
        lost = LAW.loss(gap.share * best, pair / gap.share / best) - LAW.loss(best, pair / best)
        assert gap.loss.value == pytest.approx(lost, rel=0.15)  # a parabola is not the law
        assert gap.loss.low <= gap.loss.value <= gap.loss.high


def test_no_gap_is_told_of_sizes_smaller_than_all_that_were_trained(family):
    gaps = off_optimal_gaps(family(sizes=5, reach=2.5), Resampling(0))
    assert {gap.share for gap in gaps} == {0.5}
    assert all(gap.loss.low is None for gap in gaps)


def test_the_over_training_law_is_exact_where_both_exponents_are_equal(family):
    law = Law(alpha=0.3, beta=0.3)
    found = over_training(family(law=law))
    assert isinstance(found, OverTraining)
    assert (found.fit.E, found.fit.eta) == pytest.approx((law.E, 0.15), rel=1e-2)
    assert found.error < 1e-4
    assert "5 to determine" in over_training(family().take(np.arange(4)))
