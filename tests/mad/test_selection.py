"""Which grid point of an architecture, setting and seed is scored."""

import math
from dataclasses import replace

import pytest
from tests.synthetic_records import RECIPE, plan, result

from archlab.mad.selection import choose, grid_group, grid_order, metric, solves
from archlab.mad.trial import Metrics, Trial, TrialResult
from archlab.tasks import setting

RATES = (4e-3, 2e-3, 1e-3)
COMPRESSION = setting("compression")


def grid(**values) -> list[Trial]:
    return plan(["mlp"], [COMPRESSION], **{"seeds": (0,), "learning_rates": RATES} | values)


def ended(trial: Trial, accuracy: float, *, loss: float = 0.5, status: str = "finished") -> tuple[Trial, TrialResult]:
    return trial, result(trial, [1], selected=accuracy, loss=loss, status=status)


def test_the_order_of_the_grid_is_not_that_of_the_plan():
    trials = [replace(trial, weight_decay=decay) for decay in (0.1, 0.0) for trial in grid(learning_rates=(1e-3, 4e-3, 2e-3))]
    in_order = [(t.learning_rate, t.weight_decay) for t in sorted(trials, key=grid_order)]
    assert in_order == [(rate, decay) for rate in RATES for decay in (0.0, 0.1)]


def test_only_grid_points_differ_within_a_group():
    first, *others = [replace(trial, weight_decay=decay) for decay in (0.1, 0.0) for trial in grid()]
    assert {grid_group(trial) for trial in others} == {grid_group(first)}
    (other_spec,) = plan(["swiglu"], [COMPRESSION], seeds=(0,))
    for changed in (
        replace(first, seed=1),
        replace(first, dim=64),
        replace(first, device="cuda"),
        replace(first, recipe=replace(RECIPE, steps=999)),
        replace(first, setting=setting("compression", length=8)),
        replace(first, architecture=other_spec.architecture),
    ):
        assert grid_group(changed) != grid_group(first)


def test_the_recipe_says_which_metric_counts_and_no_number_counts_as_chance():
    (trial,) = grid(learning_rates=(1e-3,))
    macro = replace(trial, recipe=replace(RECIPE, metric="macro-accuracy"))
    metrics = Metrics(accuracy=0.25, macro_accuracy=0.75, loss=1.0)
    assert (metric(trial, metrics), metric(macro, metrics)) == (0.25, 0.75)
    for nothing in (math.nan, math.inf):
        assert metric(trial, replace(metrics, accuracy=nothing)) == trial.setting.chance


@pytest.mark.parametrize(("accuracy", "status", "solved"), [
    (0.99, "finished", True), (0.989, "finished", False), (1.0, "diverged", False), (1.0, "dropped", False),
])  # fmt: skip
def test_a_setting_is_solved_at_the_stop_accuracy_by_what_finished(accuracy: float, status: str, solved: bool):
    (trial,) = grid(learning_rates=(1e-3,))
    assert solves(*ended(trial, accuracy, status=status)) == solved


def test_nothing_is_chosen_while_an_earlier_grid_point_is_missing():
    first, second, _ = grid()
    assert choose([None, ended(second, 1.0)]) is None
    assert choose([ended(first, 0.5), None]) is None
    assert choose([ended(first, 1.0), None])[0] == first
    assert choose([]) is None


def test_the_first_that_solves_is_chosen_though_a_later_one_is_better():
    first, second, third = grid()
    assert choose([ended(first, 0.5), ended(second, 0.99), ended(third, 1.0)])[0] == second


def test_where_none_solves_the_best_is_chosen_then_the_one_of_the_lower_loss():
    first, second, third = grid()
    assert choose([ended(first, 0.5), ended(second, 0.7), ended(third, 0.6)])[0] == second
    assert choose([ended(first, 0.7, loss=0.9), ended(second, 0.7, loss=0.8), ended(third, 0.6, loss=0.1)])[0] == second
    assert choose([ended(first, 0.7, loss=math.nan), ended(second, 0.7, loss=9.0), ended(third, 0.1)])[0] == second
    assert choose([ended(first, 0.7), ended(second, 0.7), ended(third, 0.1)])[0] == first


def test_what_was_dropped_is_chosen_last():
    first, second, third = grid()
    assert choose([ended(first, 0.98, status="dropped"), ended(second, 0.2), ended(third, 0.3)])[0] == third
    assert choose([ended(first, 0.1, status="dropped"), ended(second, 0.2, status="dropped")])[0] == second
    assert choose([ended(first, 0.98, status="dropped"), ended(second, 0.2, status="diverged")])[0] == second
