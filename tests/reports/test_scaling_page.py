"""The scaling report: complete, offline, honest about what is missing; its CSV holds every training."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from tests.reports.charts_of_pages import specs_of
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder, result, stripes, sweep_of

from archlab.errors import ArchlabError
from archlab.reports import scaling_charts as charts
from archlab.reports.scaling_page import PANELS, render, report
from archlab.scaling import compare
from archlab.scaling.fits import Resampling
from archlab.scaling.laws import Estimate
from archlab.scaling.store import StudyStore
from archlab.scaling.study import Study, TrainedModel, make_table, read_study
from archlab.scaling.study_fit import StudyFit, fit_study

LAW = Law()


@pytest.fixture
def findings(tmp_path):
    def made(*trainings, resamples=20) -> StudyFit:
        with StudyStore(fill(tmp_path / "archlab.db", [one for some in trainings for one in some])) as store:
            return fit_study(read_study(store.records()), Resampling(resamples))

    return made


def values_of(spec: dict) -> list[list[dict]]:
    return [spec["datasets"][layer["data"]["name"]] for layer in spec["layer"]]


def test_a_study_without_laws_has_no_empty_table_of_them(findings):
    page = render(findings(*(ladder(label, LAW, budgets=BUDGETS[:1], sizes=3) for label in "ab")))
    assert "Loss over parameters at equal compute" in page
    assert "The laws, by four methods" not in page


def test_the_page_draws_every_chart_and_needs_no_network(findings, tmp_path):
    three = {"budgets": BUDGETS[:3], "sizes": 5}
    found = findings(ladder("good", LAW, **three), ladder("bad", replace(LAW, A=500.0), **three))
    table = report(found, tmp_path / "scaling.html")
    page = (tmp_path / "scaling.html").read_text(encoding="utf-8")
    specs = specs_of(page)
    assert {name.rpartition("-")[0] for name in specs} == {
        panel.section.lower().replace(" ", "-") for panel in PANELS if any(panel.draw(found).values())
    }
    assert len(specs) == 15
    assert page.index("Comparison at equal compute") < page.index("Loss over parameters at equal compute")
    assert all(f'id="{name}"' in page for name in specs)
    assert specs["isoflop-curves-1"]["description"] == "Loss over parameters at equal compute: bad"
    curves, runs, minima = values_of(specs["isoflop-curves-0"])
    assert (len(runs), len(minima)) == (15, 3)
    assert len({row["budget"] for row in curves}) == 3
    assert "At 4e+17 FLOPs good has a lower loss than bad, which needs 1." in page
    assert "one seed: differences" in page
    assert "Machines and versions" in page
    assert "the scatter about their parabolas" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert {row["status"] for row in rows} == {"finished"}
    assert float(rows[0]["loss"]) == found.laws[0].runs.loss[0]


@pytest.fixture(scope="module")
def noisy() -> StudyFit:
    """Two architectures whose laws differ, with errors of their own."""
    shared = {"budgets": BUDGETS[:3], "sizes": 5}
    records = [*ladder("good", LAW, noise=0.01, **shared), *ladder("bad", replace(LAW, A=500.0, E=1.72), noise=0.012, **shared)]
    by_label: dict[str, list[TrainedModel]] = {}
    for trial, outcome in records:
        by_label.setdefault(trial.run.label, []).append(TrainedModel(trial, outcome, "0" * 64, {}))
    return fit_study(Study({label: make_table(label, some, "all") for label, some in by_label.items()}, "all"), Resampling(20))


def test_bands_are_the_intervals_of_the_comparison_and_go_on_dashed(noisy):
    multiplier, difference = PANELS[0].draw(noisy).values()
    compared = compare(noisy.study, resamples=20).to_dict()["rows"]
    for spec, name in ((multiplier, "multiplier"), (difference, "difference")):
        _, lines, _, _, points = values_of(spec)
        within = {row["flops"]: row for row in lines if not row["beyond"]}
        for row, point in zip(compared, points, strict=True):
            for at in (point, within[row["budget"]]):
                assert [at[key] for key in ("flops", "value", "low", "high")] == pytest.approx(
                    [row["budget"], *row[name].values()]
                )
        beyond = [row for row in lines if row["beyond"]]
        assert (min(row["flops"] for row in beyond), max(row["flops"] for row in beyond)) == pytest.approx((4e17, 4e18))


def test_a_band_without_a_bound_ends_with_its_chart(noisy):
    rows = tuple(replace(row, multiplier=Estimate(1.5, 0.0, None)) for row in noisy.comparison.rows)
    spec, _ = PANELS[0].draw(replace(noisy, comparison=replace(noisy.comparison, rows=rows))).values()
    assert [(row["low"], row["high"]) for row in values_of(spec)[3]] == [pytest.approx((1.5**-2, 1.5**3))] * 3


def test_panels_side_by_side_share_axes_and_colours_of_budgets(noisy):
    for draw in (charts.isoflop_panel, charts.contour_panel, charts.curve_panel):
        first, second = (draw(noisy, laws) for laws in noisy.laws)
        for channel in ("x", "y", "color"):
            scales = [json.dumps(spec["layer"][-1]["encoding"].get(channel, {}).get("scale")) for spec in (first, second)]
            assert scales[0] == scales[1]
    assert [*charts.budget_colours(noisy)] == ["1e+17 FLOPs", "2e+17 FLOPs", "4e+17 FLOPs"]
    assert len(set(charts.budget_colours(noisy).values())) == 3


def test_contours_are_lines_of_equal_loss_and_the_optimum_is_that_of_the_law(noisy):
    law = noisy.laws[0].by_method["huber"]
    contours, best, runs, names = values_of(charts.contour_panel(noisy, noisy.laws[0]))
    assert len({row["level"] for row in contours}) == len(names) == charts.CONTOURS
    for row in contours:
        assert float(law.fit(N=row["parameters"], D=row["tokens"])) == pytest.approx(float(row["level"]), abs=0.006)
    assert len(runs) == 15
    largest = next(row for row in best if row["beyond"])
    assert (largest["parameters"], largest["tokens"]) == pytest.approx((law.largest.size.value, law.largest.tokens.value))


def test_the_curve_of_other_sizes_goes_through_the_numbers_of_the_table(noisy):
    _, curves, bars, runs = values_of(charts.off_optimal_panel(noisy))
    for one in noisy.off_optimal:
        along = [row for row in curves if (row["architecture"], row["budget"]) == (one.label, f"{one.budget:.3g} FLOPs")]
        at = np.interp(np.log(one.fraction), *zip(*((np.log(row["ratio"]), row["excess"]) for row in along), strict=True))
        assert at == pytest.approx(one.excess.value, rel=0.05)
    assert {(row["low"], row["high"]) for row in bars} == {
        (one.excess.low, one.excess.high) for one in noisy.off_optimal if one.budget == BUDGETS[2]
    }
    assert len(runs) == 2 * 5


def test_curves_are_the_training_losses_of_every_run(noisy):
    (rows,) = charts.curve_panel(noisy, noisy.laws[0])["datasets"].values()
    table = noisy.laws[0].runs
    for run, model in enumerate(table.models):
        fractions, losses = model.curve
        shown = [(row["flops"], row["loss"]) for row in rows if row["run"] == run]
        assert shown == [
            (pytest.approx(fraction * table.C[run], rel=1e-3), pytest.approx(loss, abs=1e-4))
            for fraction, loss in zip(fractions, losses, strict=True)
        ]


@pytest.mark.parametrize(("width", "dark"), [(1400, True), (390, False)])
def test_charts_are_drawn_in_a_browser(noisy, browser, width, dark):
    page = render(noisy)
    browser.open(page, width=width, dark=dark)
    assert browser.charts() == specs_of(page).keys()
    assert (browser.troubles(), browser.beside()) == ([], [])


def test_a_single_minimum_stands_on_an_axis_with_room_and_layers_without_rows_are_left_out(findings):
    one = charts.frontier_panel(findings(ladder("a", LAW, budgets=BUDGETS[:1], sizes=5), resamples=0), "loss")
    (layer,) = one["layer"]
    low, high = layer["encoding"]["y"]["scale"]["domain"]
    (row,) = one["datasets"][layer["data"]["name"]]
    assert low < row["value"] < high


def test_a_cause_with_many_cases_is_a_line_that_unfolds(noisy):
    plans = tuple(f"<{name}>.yaml" for name in "abcde")
    page = render(replace(noisy, study=replace(noisy.study, unreadable=plans)), panels=[])
    ((line, cases),) = re.findall(r"<li><details><summary>(.*?)</summary><ul>(.*?)</ul></details></li>", page)
    assert re.search(r"\(5\): .*; 2 more", line)
    assert cases.count("<li>&lt;") == 5


def test_a_sweep_of_stripes_and_the_gaps_off_the_optimum_are_tables(findings, tmp_path):
    found = findings(sweep_of(stripes(-0.1), budgets=BUDGETS[:2], sizes=5), resamples=0)
    report(found, tmp_path / "scaling.html")
    page = (tmp_path / "scaling.html").read_text(encoding="utf-8")
    assert page.count("0.00, not bracketed") == 2
    assert page.count('<th scope="col" class="n">loss at') == 4
    assert page.count("<span>0.25 of it</span>") >= 3  # laws, excess losses of two budgets, the over-training law
    assert page.count(" / M^") == 4


def test_what_is_missing_is_said(findings, tmp_path):
    one_budget = ladder("a", LAW, budgets=BUDGETS[:1], sizes=5, reach=1.5)
    trainings = [(one, result(None) if index == 4 else outcome) for index, (one, outcome) in enumerate(one_budget)]
    found = findings(trainings, resamples=0)
    report(found, tmp_path / "scaling.html")
    page = (tmp_path / "scaling.html").read_text(encoding="utf-8")
    assert "diverged training runs, left out whatever the loss" in page
    assert "no law by isoflop" in page
    assert found.headline == "1 of 1 IsoFLOP groups have their best size bracketed"
    assert "diverged" in (tmp_path / "scaling.csv").read_text()


def test_a_table_of_somebody_else_is_not_overwritten(findings, tmp_path):
    found = findings(ladder("a", LAW, budgets=BUDGETS[:1], sizes=5), resamples=0)
    theirs = tmp_path / "runs.csv"
    theirs.write_text("model,params,tokens,loss\n")
    with pytest.raises(ArchlabError, match=r"runs.csv, which is a file of another kind and is left as it is"):
        report(found, tmp_path / "runs.html")
    assert theirs.read_text() == "model,params,tokens,loss\n"
    assert not (tmp_path / "runs.html").exists()
    first = report(found, tmp_path / "scaling.html").read_text()
    assert report(found, tmp_path / "scaling.html").read_text() == first
