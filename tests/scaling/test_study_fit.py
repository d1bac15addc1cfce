"""The fits of a study: the headline answers the question, warnings are grouped, values leave as frames and JSON."""

import json
import re
from dataclasses import replace
from itertools import islice

import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder
from tests.scaling.test_cost import planned, table
from tests.scaling.test_laws import best_of

from archlab.errors import ArchlabError
from archlab.reports.scaling_tables import law_text
from archlab.scaling.api import compare, predict
from archlab.scaling.cost import sizes_like
from archlab.scaling.fits import ParametricFit, Resampling
from archlab.scaling.laws import fit_laws
from archlab.scaling.store import StudyStore
from archlab.scaling.study import open_study
from archlab.scaling.study_fit import StudyFit, fit_study, limits

LAW = Law()
NONE = Resampling(0)
THREE = {"budgets": BUDGETS[:3], "sizes": 5}


def worse(factor: float) -> Law:
    return replace(LAW, A=LAW.A * factor, B=LAW.B * factor)


@pytest.fixture
def fitted(tmp_path):
    def made(*trainings, planned=(), resampling=NONE) -> StudyFit:
        path = fill(tmp_path / "archlab.db", [one for some in trainings for one in some])
        with StudyStore(path) as store:
            if planned:
                store.remember_plan("cut.yaml", planned)
        return fit_study(open_study(path), resampling)

    return made


def test_the_headline_names_the_best_architecture_and_the_compute_of_the_others(fitted):
    laws = {"worst": worse(1.4), "good": LAW, "middle": worse(1.2)}
    one_more = fitted(*(ladder(label, law, **THREE) for label, law in laws.items()))
    middle, worst = (c.multiplier.value for c in one_more.comparison.nearest)
    assert one_more.headline == (
        f"At 4e+17 FLOPs good has the lowest loss of 3 architectures; middle needs {middle:.3g} times the compute; "
        f"worst needs {worst:.3g} times the compute; whether by chance, these runs do not tell"
    )
    assert 1.5 < middle < worst


def test_why_budgets_have_no_minimum_is_said_once(fitted):
    lines = [str(one) for one in fitted(ladder("a", LAW, budgets=BUDGETS[:3], sizes=2)).warnings]
    assert "no law by isoflop: 0 of 3 budgets have a minimum, two are needed: a" in lines
    assert sum("fewer than 3 sizes" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (("a",), "3 of 3 IsoFLOP groups have their best size bracketed"),
        (("a", "b"), "At 4e+17 FLOPs a has the lowest loss, but is not clearly better than b"),
    ],
)
def test_the_headline_claims_no_more_than_the_runs_tell(fitted, labels, text):
    noisy = [ladder(label, LAW, **THREE, noise=0.005) for label in labels]
    assert fitted(*noisy, resampling=Resampling(20)).headline == text


def test_missing_training_runs_are_the_first_warning(fitted):
    planned = ladder("a", LAW)
    warnings = fitted(planned[:20], ladder("b", LAW)[:1], planned=[trial for trial, _ in planned]).warnings
    assert str(warnings[0]) == "missing training runs: 8 of 28 of cut.yaml: `archlab scale run cut.yaml` trains them"
    assert str(warnings[1]).startswith("no laws: sizes that have finished: 1; a law takes two at least")


def test_answers_and_refusals_name_missing_training_runs(fitted):
    planned = {label: ladder(label, LAW, **THREE) for label in "ab"}
    trials = [trial for some in planned.values() for trial, _ in some]
    with pytest.raises(
        ArchlabError, match=r"^missing training runs: 29 of 30 of cut\.yaml: .* trains them; no laws: sizes that have"
    ):
        fitted(planned["b"][:1], planned=trials)
    study = fitted(planned["a"], planned["b"][:12], planned=trials).study
    missing = "missing training runs: 3 of 30 of cut.yaml: `archlab scale run cut.yaml` trains them"
    assert str(compare(study, resamples=0).notes[0]) == missing
    assert str(predict(study, flops=1e18, resamples=0).warnings[0]) == missing


def test_methods_without_intervals_are_one_warning(fitted):
    few = {"budgets": BUDGETS[:2], "sizes": 3, "reach": 1.5}
    found = fitted(ladder("a", LAW, **few), ladder("b", worse(1.2), **few), resampling=Resampling(20))
    assert all(law.largest.no_interval for laws in found.laws for law in laws.by_method.values())
    (warning,) = [one for one in found.warnings if "no intervals" in one.cause]
    assert warning.cause.startswith("no intervals for any method: too few training runs: plan more sizes")
    assert warning.cases == ("a has 6", "b has 6")
    assert not any("no intervals" in one.cause for one in fitted(ladder("a", LAW, **few)).warnings)  # none were asked for


def test_many_cases_of_one_cause_are_one_line(fitted):
    high = [one for one in ladder("a", LAW) if one[0].run.params > 1.2 * best_of(one[0].run.budget)]
    (warning,) = [one for one in fitted(high).warnings if one.cause.startswith("the smallest size is the best")]
    assert len(warning.cases) == len(BUDGETS) == 4
    assert str(warning).startswith("the smallest size is the best: not bracketed, so no minimum (4): a at 1e+17: add sizes from ")
    assert str(warning).endswith(" parameters; 1 more")


@pytest.mark.parametrize(
    ("law", "cause"), [((1.7, 1, 400, 0.34, 0.28, 0), "smallest"), ((1.7, 4e3, 1, 0.34, 0.28, 0), "largest")]
)
def test_sizes_to_add_are_some_that_can_be_built(law, cause, monkeypatch):
    monkeypatch.setattr("archlab.scaling.laws.METHODS", ("isoflop",))
    runs = planned("quick", "mh-attention swiglu")
    found = limits(fit_laws(table(runs, law=ParametricFit(*law)), NONE))
    cases = [case for reason, case in found if reason.startswith(f"the {cause} size is the best")]
    assert len(cases) == len({run.budget for run in runs})
    built = {size.params for size in islice(sizes_like(runs), 300)}
    for budget, case in zip(sorted({run.budget for run in runs}), cases, strict=True):
        named = {int(number.replace(",", "")) for number in re.findall(r"[\d,]{3,}", case)}
        trained = {run.params for run in runs if run.budget == budget}
        assert named <= built
        if named:
            assert max(named) < min(trained) if cause == "smallest" else min(named) > max(trained)
        else:
            assert min(trained) == min(built)
            assert "no smaller size can be built" in case


def test_values_leave_as_frames_json_and_html(fitted):
    found = fitted(ladder("good", LAW, **THREE), ladder("<bad>", worse(1.2), **THREE), resampling=Resampling(20))
    frame = found.to_frame()
    assert list(frame.architecture.unique()) == ["good", "<bad>"]
    first = found.laws[0].by_method["huber"].largest
    row = frame[(frame.architecture == "good") & (frame.method == "huber")].iloc[0]
    assert (row["size"], row.size_low, row.size_high) == (first.size.value, first.size.low, first.size.high)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["headline"] == found.headline
    assert "<b>At 4e+17 FLOPs good" in found._repr_html_()
    assert "<bad>" not in found._repr_html_()
    runs = found.study.to_frame()
    assert len(runs) == 30
    assert set(runs.status) == {"finished"}


def test_the_window_of_the_parabolas_and_what_it_changes_are_said(fitted, tmp_path):
    ladders = ladder("a", Law(alpha=0.5, beta=0.2), budgets=BUDGETS, sizes=9, reach=16)
    (laws,) = fitted(ladders).laws
    found = laws.by_method["isoflop"].by_window
    assert list(found) == [3, 6, float("inf")]
    assert "; a 0." in law_text(laws.by_method["isoflop"])
    (other,) = fit_study(open_study(tmp_path / "archlab.db").with_window(3), NONE).laws
    assert other.by_method["isoflop"].fit.size_law.exponent == found[3]
    with pytest.raises(ArchlabError, match="window=1"):
        open_study(tmp_path / "archlab.db").with_window(1)


def test_a_reference_without_a_law_is_refused_for_the_reason(tmp_path):
    few = ladder("few", LAW, budgets=BUDGETS[:1], sizes=1)
    path = fill(tmp_path / "archlab.db", [*few, *(ladder("many", LAW, **THREE))])
    with pytest.raises(ArchlabError, match=r"^reference few has no law: sizes that have finished: 1;"):
        fit_study(open_study(path), NONE, reference="few")
