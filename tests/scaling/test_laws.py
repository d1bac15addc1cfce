"""From a store to laws: known laws come back by every method, what cannot be fitted is named, censored runs are left out."""

from dataclasses import replace

import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder, result, trial

from archlab.errors import ArchlabError
from archlab.scaling.fits import Resampling
from archlab.scaling.laws import METHODS, Estimate, HoldOut, _disjoint, extrapolation, fit_laws, optimum
from archlab.scaling.store import StudyStore
from archlab.scaling.study import open_study, read_study

FEW = Resampling(24)
NONE = Resampling(0)
LAW = Law()


@pytest.fixture
def study(tmp_path):
    def made(*trainings, parameters="all"):
        with StudyStore(fill(tmp_path / "archlab.db", [one for some in trainings for one in some])) as store:
            return read_study(store.records(), parameters)

    return made


def test_every_method_finds_the_law(study):
    table = study(ladder("a", LAW)).tables["a"]
    laws = fit_laws(table, FEW)
    assert tuple(laws.by_method) == METHODS
    assert not laws.refused
    assert not laws.disagreement
    best = LAW.size_factor * (max(BUDGETS) / 6) ** LAW.size_exponent
    for method, law in laws.by_method.items():
        assert law.largest.size.value == pytest.approx(best, rel=0.05)
        assert law.largest.size_exponent.value == pytest.approx(LAW.size_exponent, abs=0.01)
        assert law.largest.size_exponent.low <= law.largest.size_exponent.value <= law.largest.size_exponent.high
        assert isinstance(law.hold_out, HoldOut)
        assert law.hold_out.budget == max(BUDGETS)
        assert law.hold_out.size_ratio == pytest.approx(1, abs=0.05)
        assert (law.hold_out.loss_error is None) == (law.largest.loss is None) == (method in ("isoflop", "envelope"))
        if law.hold_out.loss_error is not None:
            assert law.hold_out.loss_error < 1e-4


def test_intervals_hold_the_law_when_there_is_noise(study):
    laws = fit_laws(study(ladder("a", LAW, seeds=3, noise=0.005)).tables["a"], FEW)
    for law in laws.by_method.values():
        exponent = law.largest.size_exponent
        assert exponent.low - 0.01 < LAW.size_exponent < exponent.high + 0.01  # noise of one draw of seeds
        assert 0.0005 < exponent.high - exponent.low < 0.6


def test_a_jackknife_gives_intervals_where_a_bootstrap_cannot(study):
    table = study(ladder("a", LAW, sizes=3, reach=2.0, noise=0.004)).tables["a"]
    by_draws, by_omission = (
        fit_laws(table, resampling).by_method["isoflop"].largest for resampling in (FEW, Resampling(method="jackknife"))
    )
    assert "cannot be fitted" in by_draws.no_interval
    assert not by_omission.no_interval
    assert by_omission.size_exponent.low < LAW.size_exponent < by_omission.size_exponent.high


def test_seeds_are_drawn_within_their_size_where_every_size_has_several(study):
    once, thrice = study(ladder("a", LAW), ladder("b", LAW, seeds=3)).tables.values()
    assert len(set(once.strata())) == len(BUDGETS)
    assert len(set(thrice.strata())) == 7 * len(BUDGETS)


def test_one_budget_makes_no_law_and_says_what_is_missing(study):
    laws = fit_laws(study(ladder("a", LAW, budgets=(1e17,), sizes=4, reach=1.5)).tables["a"], NONE)
    assert "two are needed" in laws.refused["isoflop"]
    assert "isoflop" not in laws.by_method


def test_a_group_that_is_not_bracketed_is_refused_with_the_sizes_to_add(study):
    cut = [one for one in ladder("a", LAW) if one[0].run.budget < max(BUDGETS) or one[0].run.params > 1.1 * best_of(max(BUDGETS))]
    laws = fit_laws(study(cut).tables["a"], NONE)
    (reason,) = laws.by_method["isoflop"].fit.refused.values()
    assert "not bracketed; add sizes from" in str(reason)
    assert len(laws.by_method["isoflop"].fit.minima) == len(BUDGETS) - 1
    assert laws.by_method["isoflop"].hold_out.size_ratio is None


def best_of(budget: float) -> float:
    return LAW.size_factor * (budget / 6) ** LAW.size_exponent


def test_diverged_runs_are_censored_and_their_group_is_not_bracketed_by_them(study):
    trainings = [
        (one, result(None) if one.run.budget == max(BUDGETS) and one.run.params > 1.1 * best_of(one.run.budget) else outcome)
        for one, outcome in ladder("a", LAW)
    ]
    table = study(trainings).tables["a"]
    laws = fit_laws(table, NONE)
    assert (len(table.censored), len(table.loss)) == (3, 7 * len(BUDGETS) - 3)
    (reason,) = laws.by_method["isoflop"].fit.refused.values()
    assert "the largest size" in str(reason)
    assert laws.by_method["huber"].largest.size_exponent.value == pytest.approx(LAW.size_exponent, abs=0.01)


def test_methods_that_contradict_each_other_are_flagged(study):
    # at the largest budget the losses of large models are too high: a parabola follows, the parametric law cannot
    bent = [
        (one, replace(outcome, loss=outcome.loss + 0.4 * max(0.0, one.run.params / best_of(one.run.budget) - 0.4)))
        if one.run.budget == max(BUDGETS)
        else (one, outcome)
        for one, outcome in ladder("a", LAW)
    ]
    laws = fit_laws(study(bent).tables["a"], NONE)
    assert "isoflop and huber: the optimal sizes at the largest budget differ by a factor of" in laws.disagreement


def test_answers_invert_each_other_and_know_how_far_they_reach(study):
    laws = fit_laws(study(ladder("a", LAW)).tables["a"], NONE)
    for method in ("huber", "variable-projection"):
        fit = laws.by_method[method].fit
        spent = optimum(laws.runs, method, fit, laws.cost, NONE, flops=1e21)
        assert spent.loss.value == pytest.approx(LAW.loss(spent.size.value, spent.tokens.value), rel=0.01)
        back = optimum(laws.runs, method, fit, laws.cost, FEW, loss=spent.loss.value)
        assert back.flops.value == pytest.approx(1e21, rel=1e-6)
        assert back.flops.low <= 1e21 * 1.01
        with pytest.raises(ArchlabError, match="no budget reaches it"):
            optimum(laws.runs, method, fit, laws.cost, NONE, loss=1.0)
    assert extrapolation(laws.runs, 8e20) == pytest.approx(1000)
    assert extrapolation(laws.runs, 1e16) == pytest.approx(10)
    assert extrapolation(laws.runs, 2e17) <= 1


def test_sizes_count_without_embeddings_if_asked(study):
    table = study(ladder("a", LAW), parameters="non-embedding").tables["a"]
    assert table.N[0] == table.models[0].run.params_non_embedding


def test_of_equal_trials_the_latest_counts(tmp_path):
    with StudyStore(tmp_path / "a.db") as store:
        one = trial("a", 1e17, 1e6, 1e9)
        store.finish(one, result(3.0), {})
        (record,) = store.records()
    study = read_study([record, replace(record, key="of later code", result=result(2.0))])
    assert [model.key for model in study.tables["a"].models] == ["of later code"]


@pytest.mark.parametrize(
    ("other", "named"),
    [({"length": 256}, "length"), ({"corpus_hash": "1" * 64}, "corpus_hash"), ({"convention": "6nd"}, "convention")],
)
def test_runs_whose_losses_do_not_compare_are_refused(study, other, named):
    with pytest.raises(ArchlabError, match=f"{named}: the store has runs with"):
        study([(trial("a", 1e17, 1e6, 1e9), result(3.0)), (trial("b", 1e17, 1e6, 1e9, **other), result(3.0))])


def test_an_empty_store_and_a_single_size_are_refused(study):
    with pytest.raises(ArchlabError, match="no trained language model"):
        study()
    with pytest.raises(ArchlabError, match="sizes that have finished: 1; a law takes two"):
        fit_laws(study([(trial("a", 1e17, 1e6, 1e9), result(3.0))]).tables["a"], NONE)
    with pytest.raises(ArchlabError, match="resamples=5"):
        Resampling(5)


def test_a_training_counts_once_wherever_it_was_repeated(tmp_path):
    with StudyStore(tmp_path / "a.db") as store:
        one = trial("a", 1e17, 1e6, 1e9)
        store.finish(one, result(3.0), {})
        store.finish(replace(one, device="cuda"), result(2.0), {})
        (model,) = read_study(store.records()).tables["a"].models
    assert (model.trial.device, model.result.loss) == ("cuda", 2.0)


def test_recipes_that_differ_are_named_by_what_they_differ_in(tmp_path):
    with StudyStore(tmp_path / "a.db") as store:
        one = trial("a", 1e17, 1e6, 1e9)
        store.finish(one, result(3.0), {})
        store.finish(replace(one, recipe=replace(one.recipe, precision="bf16")), result(2.0), {})
        with pytest.raises(ArchlabError, match="precision: the store has runs with bf16 and fp32, whose losses do not compare"):
            read_study(store.records())


def test_training_runs_of_a_plan_that_are_missing_are_named(tmp_path):
    trainings = ladder("a", LAW)
    trials = [one for one, _ in trainings]
    with StudyStore(fill(tmp_path / "a.db", trainings[:20])) as store:
        store.remember_plan("cut.yaml", trials[:10])
        store.remember_plan("cut.yaml", trials)
        store.remember_plan("cut.yaml", trials)
        store.remember_plan("small.yaml", trials[:4])
        assert len(store.runs()) == 3
    study = open_study(tmp_path / "a.db")
    assert [(name, *state) for name, state in study.plans.items()] == [
        ("cut.yaml", 28, [one.run for one in trials[20:]]),
        ("small.yaml", 4, []),
    ]


def test_exponents_that_are_the_same_to_three_digits_do_not_disagree():
    one, other, far = (Estimate(value, value - 1e-9, value + 1e-9) for value in (0.4516, 0.4518, 0.47))
    assert not _disjoint(one, other)
    assert _disjoint(one, far)
