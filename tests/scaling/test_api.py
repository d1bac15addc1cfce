"""The public functions of archlab.scaling: what the command line calls, from Python."""

import inspect

import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.language_models import tiny_corpus, tiny_run, write_corpus
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder

import archlab.scaling
from archlab import scaling
from archlab.cli import scale_laws
from archlab.errors import ArchlabError
from archlab.jobs.events import JobFinished
from archlab.scaling.fits import Resampling
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.study import open_study
from archlab.scaling.training_plan import Plan


def test_the_package_offers_its_functions_and_nothing_else():
    assert dir(archlab.scaling) == archlab.scaling.__all__
    for name in archlab.scaling.__all__:
        assert getattr(archlab.scaling, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        archlab.scaling.fitt  # noqa: B018


def test_a_study_is_planned_from_python(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = scaling.plan(
        "transformer++", budgets=[5e9, 1e10], sizes=2, data=str(write_corpus(tmp_path)), length=16, spread=1.5, repeat=True
    )
    assert [run.budget for run in plan.runs] == [5e9, 5e9, 1e10, 1e10]
    named = scaling.plan({"mine": "mamba"}, "quick", budgets=[2e11], sizes=1, vocab_size=99, seeds=2)
    assert [(run.label, run.seed) for run in named.runs] == [("mine", 0), ("mine", 1)]
    with pytest.raises(ArchlabError, match="unknown field of a ladder: 'size'"):
        scaling.plan("mamba", size=3)


def test_a_plan_is_trained_once_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corpus = tiny_corpus(tmp_path)
    path = tmp_path / "plan.yaml"
    Plan(tuple(tiny_run(corpus, dim=dim, steps=4) for dim in (8, 12))).save(path)
    store, recipe, events = tmp_path / "a.db", LMRecipe(validation_tokens=160), []
    summary = scaling.train(path, store=store, recipe=recipe, workers=1, listeners=[events.append])
    assert (summary.computed, summary.reused) == (2, 0)
    assert sum(isinstance(event, JobFinished) for event in events) == 2
    again = scaling.train(Plan.load(path), store=store, recipe=recipe, workers=1)
    assert (again.computed, again.reused) == (0, 2)
    assert set(open_study(store).plans) == {str(path), "plan"}
    assert not (tmp_path / "a.db.checkpoints").exists()


def test_laws_are_fitted_predicted_and_reported(tmp_path):
    few = {"budgets": BUDGETS[:3], "sizes": 5}
    store = fill(tmp_path / "a.db", ladder("good", Law(), **few) + ladder("bad", Law(A=500.0), **few))
    result = scaling.fit(store, resamples=0)
    assert [laws.runs.label for laws in result.laws] == ["good", "bad"]
    assert scaling.fit(result.study, resamples=0).headline == result.headline
    predictions = scaling.predict(result.study, flops=1e21, resamples=0)
    frame = predictions.to_frame()
    assert len(frame) == 8
    assert frame[(frame.architecture == "good") & (frame.method == "huber")]["size_value"].item() == pytest.approx(
        Law().size_factor * (1e21 / 6) ** Law().size_exponent, rel=0.05
    )
    assert "<table" in predictions._repr_html_()
    table = scaling.report(result, tmp_path / "study.html")
    assert table == tmp_path / "study.csv"
    assert "</html>" in (tmp_path / "study.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "give flops .* or loss"),
        ({"flops": 1e20, "loss": 2.0}, "give flops .* or loss"),
        ({"flops": -1.0}, "flops=-1.0: give a number above 0"),
        ({"loss": float("nan")}, "loss=nan: give a finite number above 0"),
        ({"flops": 1e20, "intervals": "guess"}, "intervals='guess': give one of bootstrap, jackknife"),
    ],
)
def test_predictions_of_nothing_are_refused(tmp_path, asked, reason):
    store = fill(tmp_path / "a.db", ladder("good", Law(), budgets=BUDGETS[:1], sizes=3))
    with pytest.raises(ArchlabError, match=reason):
        scaling.predict(store, **asked)


def test_all_functions_and_commands_draw_as_many_resamples():
    functions = [scaling.compare, scaling.fit, scaling.predict]
    functions += [scale_laws.compare, scale_laws.fit, scale_laws.predict, scale_laws.report]
    assert {inspect.signature(each).parameters["resamples"].default for each in functions} == {Resampling().resamples}
