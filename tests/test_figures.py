"""Figures: the charts of the pages as Altair charts that stand alone."""

import json
from pathlib import Path

import altair as alt
import pytest

from archlab import ArchlabError, figures, scaling
from archlab.mad.scores import Scores
from archlab.tasks import setting
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import fill, ladder
from tests.synthetic_records import plan, score, simulate

LABELS = ["mlp swiglu", "mamba swiglu"]


@pytest.fixture(scope="module")
def scores() -> Scores:
    trials = plan(LABELS, [setting("in-context-recall"), setting("compression")])
    return score(trials, simulate(trials, lambda trial: 0.9 if str(trial.architecture) == LABELS[0] else 0.4))


def legends(chart: alt.LayerChart) -> set[str]:
    """The channels of architectures that have a legend."""

    def found(part: object) -> set[str]:
        if isinstance(part, list):
            return set().union(*map(found, part))
        if not isinstance(part, dict):
            return set()
        own = {
            channel
            for channel, value in part.items()
            if isinstance(value, dict) and value.get("field") == "architecture" and value.get("legend", ...) is not None
        }
        return own.union(*map(found, part.values()))

    return found(chart.to_dict())


def test_figures_of_scores_are_charts_with_legends_in_black_on_white(scores: Scores):
    drawn = [
        figures.leaderboard(scores),
        figures.differences(scores),
        figures.differences(scores, "recall"),
        figures.learning_curves(scores, "recall"),
        figures.cost(scores),
        figures.cost(scores, "flops"),
    ]
    for chart in drawn:
        assert isinstance(chart, alt.LayerChart)
        text = json.dumps(chart.to_dict())
        assert "currentColor" not in text
        assert '"background": "white"' in text
        assert all(label in text for label in LABELS[1:])
    for chart in drawn[1:]:
        assert {"color", "shape"} <= legends(chart)


def test_a_figure_is_saved_as_svg(scores: Scores, tmp_path: Path):
    figures.differences(scores).save(tmp_path / "differences.svg")
    assert "mamba swiglu" in (tmp_path / "differences.svg").read_text()


def test_figures_of_a_study(tmp_path: Path):
    fit = scaling.fit(fill(tmp_path / "scaling.db", ladder("transformer++", Law())), resamples=0)
    assert "budget" in json.dumps(figures.isoflop(fit, "transformer++").to_dict())
    assert legends(figures.frontier(fit)) >= {"color", "shape"}
    with pytest.raises(ArchlabError, match="unknown architecture of the study: 'transformer': did you mean 'transformer\\+\\+'"):
        figures.isoflop(fit, "transformer")


def test_what_cannot_be_drawn_is_an_error(scores: Scores):
    trials = plan(LABELS[:1], [setting("compression")])
    alone = score(trials, simulate(trials, lambda _: 0.5))
    with pytest.raises(ArchlabError, match="nothing to draw"):
        figures.cost(alone)
    with pytest.raises(ArchlabError, match="unknown task 'recal'"):
        figures.learning_curves(scores, "recal")
