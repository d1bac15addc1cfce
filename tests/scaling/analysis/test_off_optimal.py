"""The cost of another size than the best: known excess losses and laws come back."""

import numpy as np
import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder

from archlab.scaling.analysis.off_optimal import OverTraining, off_optimal, over_training
from archlab.scaling.fits import Resampling
from archlab.scaling.store import StudyStore
from archlab.scaling.study import read_study

LAW = Law()


@pytest.fixture
def table(tmp_path):
    def made(**values):
        with StudyStore(fill(tmp_path / "archlab.db", ladder("a", values.pop("law", LAW), **values))) as store:
            return read_study(store.records()).tables["a"]

    return made


def test_the_excess_loss_is_that_of_the_law_at_a_smaller_size(table):
    models = off_optimal(table(seeds=2, noise=0.001), Resampling(24))
    assert [(model.budget, model.fraction) for model in models] == [
        (budget, fraction) for budget in BUDGETS for fraction in (0.5, 0.25)
    ]
    for model in models:
        pair = model.budget / 6
        best = LAW.size_factor * pair**LAW.size_exponent
        lost = LAW.loss(model.fraction * best, pair / model.fraction / best) - LAW.loss(best, pair / best)
        assert model.excess.value == pytest.approx(lost, rel=0.15)  # a parabola is not the law
        assert model.excess.low <= model.excess.value <= model.excess.high


def test_sizes_smaller_than_all_that_were_trained_are_left_out(table):
    models = off_optimal(table(sizes=5, reach=2.5), Resampling(0))
    assert {model.fraction for model in models} == {0.5}
    assert all(model.excess.low is None for model in models)


def test_the_over_training_law_is_exact_where_both_exponents_are_equal(table):
    law = Law(alpha=0.3, beta=0.3)
    found = over_training(table(law=law))
    assert isinstance(found, OverTraining)
    assert (found.fit.E, found.fit.eta) == pytest.approx((law.E, 0.15), rel=1e-2)
    assert found.error < 1e-4
    assert "5 to determine" in over_training(table().take(np.arange(4)))
