"""What the charts draw, as rows."""

import pytest
from tests.synthetic_records import plan, record, result, score

from archlab.mad.scores import Scores
from archlab.reports.charts import difference_domain, difference_rows, log_axis, log_ticks
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


def test_the_axis_holds_zero_and_every_difference(scores: Scores):
    low, high = difference_domain(difference_rows(scores))
    assert -54 < low < -50
    assert 25 < high < 29
