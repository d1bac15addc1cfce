"""The scaling report: complete, offline, honest about what is missing; its CSV holds every training."""

import csv
import json
import re
from dataclasses import replace

import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import BUDGETS, fill, ladder, result, stripes, sweep_of

from archlab.reports.scaling_page import PANELS, report
from archlab.scaling.fits import Resampling
from archlab.scaling.store import StudyStore
from archlab.scaling.study import read_study
from archlab.scaling.study_fit import StudyFit, fit_study

LAW = Law()


@pytest.fixture
def findings(tmp_path):
    def made(*trainings, resamples=20) -> StudyFit:
        with StudyStore(fill(tmp_path / "archlab.db", [one for some in trainings for one in some])) as store:
            return fit_study(read_study(store.records()), Resampling(resamples))

    return made


def specs_of(page: str) -> dict[str, dict]:
    return json.loads(re.search(r'id="specs">(.*?)</script>', page, re.DOTALL)[1])


def values_of(spec: dict) -> list[list[dict]]:
    return [spec["datasets"][layer["data"]["name"]] for layer in spec["layer"]]


def test_the_page_draws_every_chart_and_needs_no_network(findings, tmp_path):
    three = {"budgets": BUDGETS[:3], "sizes": 5}
    found = findings(ladder("good", LAW, **three), ladder("bad", replace(LAW, A=500.0), **three))
    table = report(found, tmp_path / "scaling.html")
    page = (tmp_path / "scaling.html").read_text(encoding="utf-8")
    specs = specs_of(page)
    assert {name.rpartition("-")[0] for name in specs} == {
        panel.section.lower().replace(" ", "-") for panel in PANELS if any(panel.draw(found).values())
    }
    assert len(specs) == 9
    assert page.index("Comparison at equal compute") < page.index("Loss over parameters at equal compute")
    assert all(f'id="{name}"' in page for name in specs)
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


def test_a_sweep_of_stripes_and_the_gaps_off_the_optimum_are_tables(findings, tmp_path):
    found = findings(sweep_of(stripes(-0.1), budgets=BUDGETS[:2], sizes=5), resamples=0)
    report(found, tmp_path / "scaling.html")
    page = (tmp_path / "scaling.html").read_text(encoding="utf-8")
    assert page.count("0.00, not bracketed") == 2
    assert page.count('<th class="n">loss at') == 4
    assert page.count("&nbsp;0.25 of it</td>") >= 3  # laws, excess losses of two budgets, the over-training law
    assert page.count(" / M^") == 4


def test_what_is_missing_is_said(findings, tmp_path):
    one_budget = ladder("a", LAW, budgets=BUDGETS[:1], sizes=5, reach=1.5)
    trainings = [(one, result(None) if index == 4 else outcome) for index, (one, outcome) in enumerate(one_budget)]
    found = findings(trainings, resamples=0)
    report(found, tmp_path / "scaling.html")
    page = (tmp_path / "scaling.html").read_text(encoding="utf-8")
    assert "1 training run diverged and left out" in page
    assert "a: isoflop: " in page
    assert found.headline == "1 of 1 IsoFLOP groups have their best size bracketed"
    assert "diverged" in (tmp_path / "scaling.csv").read_text()
