"""The cost of a token is the spec's own count at every width, and the optimum of a law at it is where a search finds it."""
# ruff: noqa: N806 - the field's symbols

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from tests.scaling.synthetic_ladders import result

from archlab.errors import ArchlabError
from archlab.scaling.cost import Cost, CostFrontier, cost_of, power_laws, sizes_like
from archlab.scaling.fits import ParametricFit
from archlab.scaling.flops import training_flops
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.ladder import load_ladder
from archlab.scaling.planner import all_sizes, make_plan
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.study import TrainedModel, make_table
from archlab.scaling.trial import LMTrial

LAW = ParametricFit(1.69, 406.4, 410.7, 0.34, 0.28, 0.0)
LADDERS = {
    "quick": load_ladder("quick").with_values(vocab_size=99),
    "paper": replace(load_ladder("paper"), architectures=MappingProxyType({})),
}
SPECS = ["mh-attention swiglu", "3*[hyena swiglu] mh-attention swiglu", "2*mamba(d_state=16)", "mh-attention(heads=2) swiglu"]


def planned(ladder, spec):
    return list(make_plan(LADDERS[ladder], {"a": spec}).runs)


def table(runs, parameters="all", law=LAW):
    models = [TrainedModel(LMTrial(run, LMRecipe()), result(float(law(N=run.params, D=run.tokens))), "", {}) for run in runs]
    return make_table("a", models, parameters)


def imported(cost):
    sizes = np.geomspace(1e7, 1e9, 9)
    return make_table("a", [ImportedRun("a", 1e20, 1e20, n, 1e20 / float(cost(n)), 3.0, 0) for n in sizes.tolist()], "all")


@pytest.mark.parametrize("parameters", ["all", "non-embedding"])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("ladder", LADDERS)
def test_every_size_that_can_be_built_has_the_cost_that_its_spec_counts(ladder, spec, parameters):
    used = LADDERS[ladder]
    runs = planned(ladder, spec)
    cost = cost_of(table(runs, parameters))
    assert not cost.doubt
    shape = {name: getattr(used, name) for name in ("length", "aspect", "head_dim", "width_multiple")}
    shape |= {"vocab_size": runs[0].vocab_size, "backbone": runs[0].backbone}
    least, furthest = min(run.dim for run in runs), 1e4 * max(run.params for run in runs)
    for size in all_sizes(spec, **shape):
        if least <= size.dim and size.params < furthest:
            exact = training_flops(size.architecture, **size.shape, convention="exact") / size.length
            at = size.params if parameters == "all" else size.params_non_embedding
            assert float(cost(at)) == pytest.approx(exact, rel=1e-9)


def test_the_cost_of_runs_that_their_spec_does_not_explain_is_their_own():
    runs = planned("quick", "mh-attention swiglu")
    twice = [replace(run, flops=2 * run.flops) for run in runs]
    cost = cost_of(table(twice))
    assert "interpolated" in cost.source
    assert not cost.doubt
    np.testing.assert_allclose(cost([run.params for run in twice]), [run.flops / run.tokens for run in twice], rtol=0.01)
    jagged = [replace(run, flops=run.flops * (2 if run.budget > 3e11 else 1)) for run in runs]
    assert "off a training run" in cost_of(table(jagged)).doubt
    deeper = [replace(run, spec="7*[mh-attention swiglu]") if run is runs[0] else run for run in runs]
    with pytest.raises(ArchlabError, match="ratio of width to depth"):
        sizes_like(deeper)
    assert "interpolated" in cost_of(table(deeper)).source


def test_imported_runs_have_the_cost_of_their_flops():
    six = cost_of(imported(lambda n: 6 * n))
    assert (six.source, six.doubt) == ("6 N", "")
    more = cost_of(imported(lambda n: 3e8 + 5 * n))
    assert not more.doubt
    sizes = np.geomspace(1e7, 1e9, 50)
    np.testing.assert_allclose(six(1e5 * sizes), 6e5 * sizes, rtol=1e-9)
    np.testing.assert_allclose(more(sizes), 3e8 + 5 * sizes, rtol=0.02)
    assert more(1e12) == pytest.approx(1e3 * more(1e9))


def test_the_optimum_by_6nd_is_that_of_the_closed_form():
    frontier, closed = CostFrontier(LAW, cost_of(imported(lambda n: 6 * n))), LAW.frontier()
    C = np.array([[1e17, 1e19], [1e21, 1e24]])
    for name in ("size", "tokens", "loss"):
        np.testing.assert_allclose(getattr(frontier, name)(C), getattr(closed, name)(C), rtol=1e-6)
    np.testing.assert_allclose(frontier.flops(frontier.loss(C)), C, rtol=1e-9)
    assert frontier.size(1e20).shape == ()
    laws = power_laws(frontier)
    assert (laws.size.exponent, laws.tokens.exponent) == pytest.approx((closed.size.exponent, closed.tokens.exponent), abs=1e-6)
    assert laws.loss(1e20) == pytest.approx(closed.loss(1e20), rel=1e-6)


def test_the_optimum_at_the_count_of_a_spec_is_where_a_search_over_many_sizes_finds_it():
    frontier = CostFrontier(LAW, cost_of(table(planned("paper", "mh-attention swiglu"))))
    sizes = np.geomspace(1e7, 1e12, 500_001)
    for budget in (4e18, 8e19, 1e24):
        losses = LAW(N=sizes, D=budget / frontier.cost(sizes))
        assert float(frontier.loss(budget)) == pytest.approx(losses.min(), abs=1e-8)
        assert float(frontier.size(budget)) == pytest.approx(sizes[losses.argmin()], rel=1e-3)
        assert float(frontier.tokens(budget)) == pytest.approx(budget / float(frontier.cost(frontier.size(budget))))
        assert float(frontier.flops(losses.min())) == pytest.approx(budget, rel=1e-6)


def test_what_has_no_optimum_is_refused():
    cost = Cost((1e6, 1e9), (6e6, 6e9), (1e18, 1e20), "6 N")
    with pytest.raises(ArchlabError, match="no effect of size"):
        CostFrontier(replace(LAW, A=0.0), cost)
    with pytest.raises(ArchlabError, match="no budget reaches it"):
        CostFrontier(LAW, cost).flops([2.0, 1.5])
    flat = Cost((1e6, 1e9), (6e9, 6e9 * (1 + 1e-9)), (1e18, 1e20), "constant")
    with pytest.raises(ArchlabError, match=r"budget 1e\+50: the law has no optimum"):
        CostFrontier(LAW, flat).size(1e50)
