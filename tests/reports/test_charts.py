"""What the charts draw, as rows."""

import pytest
from tests.synthetic_records import plan, record, result, score

from archlab.mad.scores import Scores
from archlab.reports.axes import log_axis, log_ticks
from archlab.reports.charts import cost_panel, difference_panel, difference_rows
from archlab.reports.marks import spread
from archlab.tasks import setting

RIGHT = {"4*mlp": {"in-context-recall": 4, "compression": 2}, "3*mlp": {"in-context-recall": 2, "compression": 3}}


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Every answer of an architecture is as good: ``4*mlp`` leads with 75 % over 62.5 %, and is behind in compression."""
    trials = plan(RIGHT, [setting("in-context-recall"), setting("compression")], seeds=(0,))
    return score(trials, {t.key: record(t, result(t, [RIGHT[str(t.architecture)][t.setting.name]] * 5)) for t in trials})


@pytest.mark.parametrize(
    ("task", "mean", "text"), [(None, -12.5, "−12.5"), ("in-context-recall", -50.0, "−50.0"), ("compression", 25.0, "+25.0")]
)
def test_differences_lie_left_of_zero_where_the_leader_is_better(scores: Scores, task: str | None, mean: float, text: str):
    (row,) = difference_rows(scores)[task]
    assert row["architecture"] == "3*mlp"
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((mean, mean, mean))
    assert (row["text"], row["interval"]) == (text, f"{text} to {text}")


@pytest.mark.parametrize(
    ("low", "high"), [(3835, 26e3), (1e18, 1e22), (1.9999e11, 8e12), (0.8, 1.6), (1, 1), (2e-3, 5e-3), (1e6, 1.5e10), (1, 1.001)]
)
def test_a_logarithmic_axis_has_few_labels_and_one_at_each_end(low: float, high: float):
    ticks = log_ticks(low, high)
    axis = log_axis([low, high])
    assert ticks == axis["axis"]["values"] == sorted(ticks)
    assert axis["scale"]["domain"] == [ticks[0], ticks[-1]]
    assert 0.33 * low < ticks[0] <= 1.01 * low
    assert 0.99 * high <= ticks[-1] < 3 * high
    assert 2 <= len(ticks) <= 7


def test_a_single_value_stands_in_the_middle_of_its_axis():
    assert log_ticks(2e11, 2e11) == [1.9e11, 2e11, 2.1e11]


def test_a_panel_of_differences_holds_zero_its_own_differences_and_prints_them(scores: Scores):
    rows = difference_rows(scores)
    domains = {}
    for task in (None, "in-context-recall", "compression"):
        panel = difference_panel(scores, rows, task)
        assert panel is not None
        assert "3*mlp " + rows[task][0]["text"] in panel["description"]
        assert {"field": "text", "type": "nominal"} in [layer["encoding"].get("text") for layer in panel["layer"]]
        (domains[task],) = {tuple(found["domain"]) for found in _scales(panel) if "range" in found and len(found["domain"]) == 2}
    assert -54 < domains["in-context-recall"][0] < -50 < 0 < domains["in-context-recall"][1] < 3
    assert -3 < domains["compression"][0] < 0 < 25 < domains["compression"][1] < 29


def _scales(panel: dict) -> list[dict]:
    encodings = [channel for layer in panel["layer"] for channel in layer["encoding"].values()]
    scales = [channel["scale"] for channel in encodings if isinstance(channel, dict) and channel.get("scale")]
    return [scale for scale in scales if isinstance(scale["domain"][0], int | float)]


def test_seeds_differ_by_the_mean_over_the_settings_that_both_have():
    trials = plan(RIGHT, [setting("in-context-recall"), setting("compression")], seeds=(0, 1))
    records = {t.key: record(t, result(t, [RIGHT[str(t.architecture)][t.setting.name] - t.seed] * 5)) for t in trials}
    (row,) = difference_rows(score(trials, records))[None]
    assert row["seeds"] == [-12.5, -12.5]


def test_labels_at_line_ends_are_apart_and_in_order():
    assert spread([50, 10], 5, 0, 100) == [50, 10]
    assert spread([99, 98, 1], 5, 0, 100) == [99, 94, 1]
    assert spread([1, 2, 0], 5, 0, 100) == [5, 10, 0]
    assert spread([1, 2, 3], 60, 0, 100) == [1, 2, 3]


def test_a_highlighted_architecture_is_the_only_one_that_does_not_fade(scores: Scores):
    drawn = cost_panel(scores, "num_params")
    assert drawn is not None
    assert drawn["params"] == [{"name": "chosen", "value": None}]
    with_architectures = [layer for layer in drawn["layer"] if "architecture" in str(layer["encoding"])]
    assert len(with_architectures) == 4
    assert all("chosen" in str(layer["encoding"]["opacity"]["condition"]) for layer in with_architectures)
