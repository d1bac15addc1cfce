"""The best fraction of attention: a known optimum comes back, and only like is compared with like."""

import pytest
from tests.scaling.synthetic_ladders import fill, stripes, sweep_of

from archlab.scaling.analysis.hybridisation import sweeps
from archlab.scaling.fits import Resampling
from archlab.scaling.laws import Estimate
from archlab.scaling.store import StudyStore
from archlab.scaling.study import read_study

BUDGETS = (1e17, 4e17)


@pytest.fixture
def tables(tmp_path):
    def made(specs: dict[str, tuple[str, float]], **values):
        with StudyStore(fill(tmp_path / "archlab.db", sweep_of(specs, budgets=BUDGETS, **values))) as store:
            return read_study(store.records()).tables.values()

    return made


@pytest.mark.parametrize("resampling", [Resampling(24), Resampling(method="jackknife"), Resampling(0)])
def test_the_best_fraction_is_between_those_that_were_trained(tables, resampling):
    (sweep,) = sweeps(tables(stripes(0.35), seeds=2, noise=0.001), resampling)
    assert sweep.layers == ("hyena", "swiglu")
    assert list(sweep.fractions.values()) == [0, 0.25, 0.5, 1]
    assert [best.budget for best in sweep.best] == list(BUDGETS)
    for best in sweep.best:
        assert best.bracketed
        assert best.fraction.value == pytest.approx(0.35, abs=0.01)
        assert min(best.losses, key=best.losses.get) == "0.25 of it"
        if resampling.resamples:
            assert best.fraction.low <= best.fraction.value <= best.fraction.high
        else:
            assert best.fraction.low is None


def test_a_best_fraction_at_the_end_is_not_bracketed(tables):
    (sweep,) = sweeps(tables(stripes(-0.2), noise=0.001), Resampling(24))
    assert [(best.fraction, best.bracketed) for best in sweep.best] == [(Estimate(0, None, None), False)] * 2


def test_only_architectures_of_the_same_layers_make_a_sweep(tables):
    two = dict(list(stripes(0.3).items())[1:])
    mixed = {"0.5 of it": ("mamba swiglu mh-attention swiglu", 1.7)}
    assert len(sweeps(tables(two), Resampling(0))) == 1
    assert sweeps(tables(two | mixed), Resampling(0)) == ()


def test_a_window_is_no_attention_to_the_whole_past(tables):
    specs = stripes(0.35) | {"0.5 of it": ("hyena swiglu gqa(window=4) swiglu", 1.7), "1 of it": ("gqa swiglu", 1.8)}
    (sweep,) = sweeps(tables(specs | {"0.75 of it": ("hyena swiglu 3*[gqa swiglu]", 1.75)}), Resampling(0))
    assert list(sweep.fractions.values()) == [0, 0.25, 0.75, 1]
