import json
from dataclasses import replace

import pytest
from tests.synthetic_records import plan, score, simulate

from archlab.mad.spending import Spending
from archlab.reports.charts import cost_panel
from archlab.reports.findings import frontier, ranking, reading, separation, spent
from archlab.reports.tables import leaderboard_notes
from archlab.tasks import setting

LINEAR = "torch.nn.Linear(out_features=128)"  # does not say what it carries


@pytest.mark.parametrize(
    ("specs", "finding", "in_chart"),
    [
        (["1*mamba", "swiglu"], "For the state they carry, none beats 1*mamba and swiglu", 2),
        (["1*mamba", "swiglu", LINEAR], f"none beats 1*mamba and swiglu; the state of {LINEAR} is not known", 2),
        (["1*mamba", LINEAR], f"none beats 1*mamba; the state of {LINEAR} is not known", None),
        ([LINEAR], "The state of the architectures is not known", None),
    ],
)
def test_state_that_is_not_known_is_told_apart(specs, finding, in_chart):
    trials = plan(specs, [setting("compression")])
    scores = score(trials, simulate(trials, lambda trial: 0.9 - 0.3 * specs.index(str(trial.architecture)), spread=0.001))
    assert frontier(scores).endswith(finding)
    panel = cost_panel(scores, "state_size")
    assert in_chart == (panel and json.dumps(panel).count('"cost": '))
    assert ("state ?" in leaderboard_notes(scores)) == (LINEAR in specs)
    assert {a["architecture"]: a["state_size"] for a in scores.to_dict()["architectures"]}.get(LINEAR) is None


def test_what_was_spent_says_what_dropping_may_have_cost():
    exact = Spending(
        trials=72, trials_started=52, dropped=0, steps=64_000, steps_spent=40_000, flops=5.01e13, flops_spent=3.46e13
    )
    assert spent(exact) == (
        "20 of 72 trials left out, 0 dropped; 40k of 64k steps and 3.46e+13 of 5.01e+13 FLOPs spent: "
        "30.9\N{NO-BREAK SPACE}% saved by stopping early and by racing"
    )
    assert spent(replace(exact, dropped=28)).endswith(
        "; where it was measured, dropping cost a task 0.1 points on average and 2.2 at most"
    )


def test_one_seed_establishes_no_order():
    trials = plan(["1*mamba", "swiglu"], [setting("compression")], seeds=(0,))
    scores = score(trials, simulate(trials, lambda trial: 0.9 if trial.architecture.label == "swiglu" else 0.3))
    headline = ranking(scores)
    assert headline.startswith("swiglu has the highest score, ")
    assert headline.endswith(" above 1*mamba; one seed: order not established")
    assert "(" not in headline
    assert separation(scores) == "One seed: order not established"


def test_percent_signs_stay_with_their_numbers():
    trials = plan(["1*mamba", "swiglu"], [setting("compression")])
    scores = score(trials, simulate(trials, lambda trial: 0.9 if trial.architecture.label == "swiglu" else 0.3))
    for text in (ranking(scores), reading(scores), spent(scores.spending)):
        assert "%" in text
        assert " %" not in text
