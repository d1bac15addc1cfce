"""The best share of attention: a known optimum comes back, and only like is compared with like."""

import pytest
from tests.scaling.synthetic_ladders import fill, stripes, sweep_of

from archlab.scaling.analysis.hybridisation import sweeps
from archlab.scaling.fits import Resampling
from archlab.scaling.laws import Estimate
from archlab.scaling.store import StudyStore
from archlab.scaling.study import read_study

BUDGETS = (1e17, 4e17)


@pytest.fixture
def families(tmp_path):
    def made(specs: dict[str, tuple[str, float]], **values):
        with StudyStore(fill(tmp_path / "archlab.db", sweep_of(specs, budgets=BUDGETS, **values))) as store:
            return read_study(store.records()).tables.values()

    return made


@pytest.mark.parametrize("how", [Resampling(24), Resampling(method="jackknife"), Resampling(0)])
def test_the_best_share_is_between_those_that_were_trained(families, how):
    (sweep,) = sweeps(families(stripes(0.35), seeds=2, noise=0.001), how)
    assert sweep.layers == ("hyena", "swiglu")
    assert list(sweep.shares.values()) == [0, 0.25, 0.5, 1]
    assert [best.budget for best in sweep.best] == list(BUDGETS)
    for best in sweep.best:
        assert best.bracketed
        assert best.share.value == pytest.approx(0.35, abs=0.01)
        assert min(best.losses, key=best.losses.get) == "0.25 of it"
        if how.resamples:
            assert best.share.low <= best.share.value <= best.share.high
        else:
            assert best.share.low is None


def test_a_best_share_at_the_end_is_not_bracketed(families):
    (sweep,) = sweeps(families(stripes(-0.2), noise=0.001), Resampling(24))
    assert [(best.share, best.bracketed) for best in sweep.best] == [(Estimate(0, None, None), False)] * 2


def test_only_architectures_of_the_same_layers_make_a_sweep(families):
    two = dict(list(stripes(0.3).items())[1:])
    mixed = {"0.5 of it": ("mamba swiglu mh-attention swiglu", 1.7)}
    assert len(sweeps(families(two), Resampling(0))) == 1
    assert sweeps(families(two | mixed), Resampling(0)) == ()


def test_a_window_is_no_attention_to_the_whole_past(families):
    specs = stripes(0.35) | {"0.5 of it": ("hyena swiglu gqa(window=4) swiglu", 1.7), "1 of it": ("gqa swiglu", 1.8)}
    (sweep,) = sweeps(families(specs | {"0.75 of it": ("hyena swiglu 3*[gqa swiglu]", 1.75)}), Resampling(0))
    assert list(sweep.shares.values()) == [0, 0.25, 0.75, 1]
