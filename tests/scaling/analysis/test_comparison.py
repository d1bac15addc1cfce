"""Comparisons of architectures: known differences, multipliers and crossings come back, and failed runs change nothing."""

from dataclasses import replace

import numpy as np
import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder, result
from tests.scaling.test_cost import planned

from archlab import scaling
from archlab.errors import ArchlabError
from archlab.reports.scaling_tables import crossing_lines
from archlab.scaling.analysis.comparison import Crossing, compare_study, multiplier_text, state_law
from archlab.scaling.fits import Resampling
from archlab.scaling.laws import Estimate, fit_laws
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.store import StudyStore
from archlab.scaling.study import RunTable, Study, TrainedModel, make_table, read_study
from archlab.scaling.trial import LMTrial

FEW = Resampling(100)
NONE = Resampling(0)
LAW = Law()
WORSE = replace(LAW, A=LAW.A * 1.2, B=LAW.B * 1.2)


@pytest.fixture
def tables(tmp_path):
    def made(*trainings):
        with StudyStore(fill(tmp_path / "archlab.db", [one for some in trainings for one in some])) as store:
            return read_study(store.records()).tables

    return made


def simulated(label, law, seed=0, noise=0.003, shared=0.0, budgets=(4e18, 8e18, 2e19, 4e19, 8e19), sizes=7) -> RunTable:
    """Runs of a law with errors of their own, and with errors that are those of every architecture."""
    flops, index = np.repeat(budgets, sizes), np.tile(np.arange(sizes), len(budgets))
    size = law.size_factor * (flops / 6) ** law.size_exponent * np.geomspace(1 / 4, 4, sizes)[index]
    own, common = (np.random.default_rng(some).normal(size=len(flops)) for some in (seed, 999))
    loss = law.loss(size, flops / 6 / size) + noise * (np.sqrt(1 - shared) * own + np.sqrt(shared) * common)
    zero = np.zeros_like(index)
    return RunTable(label, flops, index, zero, flops, size, flops / 6 / size, loss, size, models=(), censored=())


def rows_of(table, rows):
    names = ("budget", "size_index", "seed", "C", "N", "D", "loss", "state")
    return replace(table, **{name: getattr(table, name)[rows] for name in names})


def of(*some):
    return {one.label: one for one in some}


def least(law, flops):
    size = law.size_factor * (flops / 6) ** law.size_exponent
    return law.loss(size, flops / 6 / size)


def reaching(law, loss):
    """The compute of a law's loss."""
    excess = least(law, 1.0) - law.E
    return ((loss - law.E) / excess) ** (-(law.alpha + law.beta) / (law.alpha * law.beta))


def test_exact_runs_give_the_differences_and_multipliers_of_their_laws_beyond_them_too():
    study = of(simulated("good", LAW, noise=0), simulated("bad", WORSE, noise=0))
    found = compare_study(study, NONE, flops=[8e20])
    assert found.reference == "good"
    assert [(row.budget, row.extrapolation) for row in found.rows[-2:]] == [(8e19, 1), (8e20, 10)]
    for row in found.rows:
        assert row.difference.value == pytest.approx(least(WORSE, row.budget) - least(LAW, row.budget), abs=2e-4)
        assert row.multiplier.value == pytest.approx(reaching(WORSE, least(LAW, row.budget)) / row.budget, rel=0.02)
        assert row.difference.low is row.multiplier.low is None
    (back,) = {row.multiplier.value for row in compare_study(study, NONE, reference="bad").rows if row.budget == 8e19}
    assert back < 1


def test_compare_and_predict_agree_on_the_loss_of_a_budget_beyond_the_runs(monkeypatch):
    monkeypatch.setattr("archlab.scaling.laws.METHODS", ("variable-projection",))
    tables = {}
    for label, spec, law in (("a", "mh-attention swiglu", LAW), ("b", "3*[hyena swiglu] mh-attention swiglu", WORSE)):
        runs = [replace(run, label=label) for run in planned("quick", spec)]
        trained = [LMTrial(run, LMRecipe()) for run in runs]
        losses = [float(law.loss(run.params, run.tokens)) for run in runs]
        models = [TrainedModel(trial, result(loss), "", {}) for trial, loss in zip(trained, losses, strict=True)]
        tables[label] = make_table(label, models, "all")
    study = Study(tables, "all")
    beyond = 10 * max(float(table.C.max()) for table in tables.values())
    (row,) = (row for row in scaling.compare(study, reference="a", flops=[beyond], resamples=0).rows if row.budget == beyond)
    found = {}
    for label, table in tables.items():
        (predicted,) = scaling.predict(Study({label: table}, "all"), flops=beyond, resamples=0).rows
        found[label] = predicted.optimum.loss.value
    assert row.difference.value == pytest.approx(found["b"] - found["a"], abs=2e-6)


@pytest.mark.parametrize("flops", [(), (1e21,)])
def test_intervals_surround_the_value_and_shared_errors_cancel(flops):
    alone, shared = (
        compare_study(of(simulated("good", LAW, 1, shared=share), simulated("bad", WORSE, 2, shared=share)), FEW, flops=flops)
        for share in (0.0, 0.95)
    )
    for one, other in zip(alone.rows, shared.rows, strict=True):
        assert one.difference.low < one.difference.value < one.difference.high
        assert one.multiplier.low < one.multiplier.value < one.multiplier.high
        assert other.difference.high - other.difference.low < 0.6 * (one.difference.high - one.difference.low)


@pytest.mark.slow
def test_three_failed_runs_change_no_interval_by_more_than_a_fifth_and_are_named():
    clean = [simulated(label, law, seed) for seed, (label, law) in enumerate({"a": LAW, "b": WORSE, "c": LAW}.items())]
    loss = clean[1].loss.copy()
    loss[[2, 20, 34]] = 7.6, 10.8, 9
    kept = np.delete(np.arange(35), [2, 20, 34])
    failed, without = (
        compare_study(of(clean[0], one, clean[2]), Resampling(500), reference="a", flops=[8e20])
        for one in (replace(clean[1], loss=loss), rows_of(clean[1], kept))
    )
    whole = compare_study(of(*clean), Resampling(500), reference="a", flops=[8e20])
    (named,) = failed.notes
    assert named.cause == "outliers left out of comparisons"
    assert len(named.cases) == 3
    assert "at 4e+18 FLOPs, seed 0: loss 7.6 where" in named.cases[0]
    for one, other, all_runs in zip(failed.rows, without.rows, whole.rows, strict=True):
        width = all_runs.difference.high - all_runs.difference.low
        assert one.difference.high - one.difference.low == pytest.approx(width, rel=0.2)
        assert one.difference.value == pytest.approx(other.difference.value, abs=0.02 * width)


def test_intervals_are_as_wide_as_the_errors_of_their_budget():
    def falling(label, law, seed):
        table = simulated(label, law, seed, noise=0)
        errors = np.random.default_rng(seed).normal(size=35) * 0.04 * (table.C / 4e18) ** -1
        return replace(table, loss=table.loss + errors)

    found = compare_study(of(falling("a", LAW, 1), falling("b", WORSE, 2)), Resampling(300))
    first, *_, last = (row.difference.high - row.difference.low for row in found.rows)
    assert first > 2.5 * last
    assert last < 0.012


def test_a_crossing_is_found_between_the_budgets():
    steep = Law(E=1.6, A=900, B=900, alpha=0.36, beta=0.3)
    at = np.geomspace(4e18, 8e19, 400)
    truth = at[np.flatnonzero(np.diff(np.sign([least(steep, c) - least(LAW, c) for c in at])))]
    table = of(simulated("a", LAW, 1, noise=0.001), simulated("b", steep, 2, noise=0.001))
    crossings = compare_study(table, FEW, reference="a").crossings
    assert len(crossings) == len(truth)
    for one, flops in zip(crossings, truth, strict=True):
        assert one.budget.low < flops < one.budget.high
        assert one.better_below == "a"


def test_a_loss_that_is_never_reached_has_no_multiplier():
    found = compare_study(of(simulated("low", Law(E=1.2)), simulated("high", Law(E=3.4))), FEW, reference="low")
    assert {row.multiplier for row in found.rows if row.difference.value > 0.5} == {None}
    assert multiplier_text(Estimate(2.5, 1.5, None), ".2f") == "2.50 (at least 1.50)"


def test_one_budget_is_enough_for_a_difference_but_not_for_a_multiplier(tables):
    study = tables(*(ladder(label, law, budgets=BUDGETS[:1]) for label, law in (("good", LAW), ("bad", WORSE))))
    found = compare_study(study, FEW)
    (row,) = found.rows
    assert row.difference.low <= row.difference.value <= row.difference.high
    assert row.multiplier is None
    assert found.notes[0].cause.startswith("no law with a floor, so differences by minima")
    assert found.notes[0].cases == ("good", "bad")
    with pytest.raises(ArchlabError, match="flops: no two architectures have laws to extrapolate"):
        compare_study(study, FEW, flops=[1e20])


def test_runs_are_paired_by_size_index_even_if_some_were_censored(tables):
    noisy = ladder("b", LAW, noise=0.01)
    holed = [(one, result(None) if place == 1 else outcome) for place, (one, outcome) in enumerate(noisy)]
    found = compare_study(tables(ladder("a", LAW, noise=0.01), holed), FEW)
    last = found.rows[-1].difference
    assert last.value == pytest.approx(0, abs=0.003)
    assert last.high - last.low < 0.01  # only a pairing by size index sees that the errors of both are the same


def test_what_cannot_be_compared_is_refused():
    one = simulated("a", LAW)
    with pytest.raises(ArchlabError, match="1 architecture in the study"):
        compare_study(of(one), NONE)
    with pytest.raises(ArchlabError, match="unknown architecture 'aa': did you mean"):
        compare_study(of(one, simulated("aab", LAW)), NONE, reference="aa")
    none = rows_of(simulated("b", LAW), slice(0, 0))
    with pytest.raises(ArchlabError, match="no finished training run of b: a comparison takes two"):
        compare_study(of(one, none), NONE)
    with pytest.raises(ArchlabError, match="no finished training run of b"):
        compare_study(of(one, none, simulated("c", LAW)), NONE, reference="b")
    found = compare_study(of(one, none, simulated("c", LAW)), NONE)
    assert (found.reference in ("a", "c"), {row.architecture for row in found.rows} <= {"a", "c"}) == (True, True)
    assert any(str(group).startswith("no finished training run") for group in found.notes)


def test_the_best_at_the_largest_shared_budget_is_the_reference_and_the_others_follow(tables):
    study = tables(
        *(
            ladder(label, replace(LAW, A=LAW.A * factor, B=LAW.B * factor), budgets=budgets)
            for label, factor, budgets in (("worst", 1.4, BUDGETS[:3]), ("middle", 1.2, BUDGETS), ("good", 1, BUDGETS[:3]))
        )
    )
    found = compare_study(study, NONE)
    assert found.reference == "good"
    assert [row.architecture for row in found.nearest] == ["middle", "worst"]
    assert [row.budget for row in found.nearest] == [BUDGETS[2]] * 2
    assert found.headline.startswith(f"At {BUDGETS[2]:.3g} FLOPs good has the lowest loss of 3 architectures; middle needs 3.")
    against = compare_study(study, NONE, reference="middle").headline
    assert against.startswith(f"At {BUDGETS[2]:.3g} FLOPs, against middle: good needs 0.")


def test_architectures_without_a_common_budget_are_named_and_a_crossing_that_nothing_shows_is_doubted():
    small, large = (
        simulated("a", LAW, budgets=(4e18, 8e18)),
        simulated("b", replace(LAW, A=LAW.A * 1.01), 1, budgets=(4e19, 8e19)),
    )
    found = compare_study(of(small, large), FEW)
    assert found.rows == ()
    assert str(found.notes[-1]).startswith("no budget within the runs of a too, so no difference: compare at budgets of your own")
    assert not any("no budget within" in str(note) for note in compare_study(of(small, large), FEW, flops=[2e19]).notes)
    crossing = Crossing("a", "b", "a", Estimate(1e19, None, None))
    lines = crossing_lines(replace(found, crossings=(crossing,)))
    assert lines == ["a is better below 1e+19 FLOPs (whether they cross at all, these runs do not tell), b above"]


def test_a_sentence_about_many_architectures_names_the_nearest():
    laws = {f"a{i}": replace(LAW, A=LAW.A * (1 + i / 10)) for i in (3, 1, 0, 2, 4, 5, 6)}
    found = compare_study(of(*(simulated(label, law, noise=0) for label, law in laws.items())), NONE)
    beside = found.headline.split("; ")
    assert [part.split()[0] for part in beside[1:5]] == ["a1", "a2", "a3", "3"]
    assert beside[4] == "3 more are below"
    equal = compare_study(of(*(simulated(f"b{i}", LAW, seed=i) for i in range(7))), FEW)
    assert "but is not clearly better than" in equal.headline
    assert equal.headline.count(" and ") <= 4


def test_the_state_law_has_one_slope_over_architectures(tables):
    study = tables(ladder("a", LAW), ladder("b", replace(LAW, A=500))).values()
    law = state_law([fit_laws(table, NONE) for table in study], Resampling(24))
    assert law.exponent < 0
    assert law.offsets.keys() == {"a", "b"}
    assert law.offsets["b"] > law.offsets["a"]
    assert law.interval.low < law.exponent < law.interval.high


def test_a_state_law_needs_no_interval(tables):
    study = tables(ladder("a", LAW), ladder("b", replace(LAW, A=500))).values()
    law = state_law([fit_laws(table, NONE) for table in study], NONE)
    assert law.exponent < 0
    assert law.interval is None
