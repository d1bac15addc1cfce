"""The course of a training run."""

import math

import pytest

from archlab.training.steps import diverged_step, evenly_spaced, learning_rate


@pytest.mark.parametrize("schedule", ["cosine", "constant", "wsd"])
def test_every_schedule_warms_up_linearly_to_the_peak(schedule):
    rates = [learning_rate(step, 20, schedule, warmup=0.25, final=0.1, decay=0.2) for step in range(1, 7)]
    assert rates == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]


def test_cosine_is_half_way_down_in_the_middle_and_ends_at_the_final_rate():
    rates = [learning_rate(step, 101, "cosine", warmup=0, final=0.2) for step in (1, 51, 101)]
    assert rates == pytest.approx([1.0, 0.6, 0.2])


def test_wsd_decays_linearly_over_the_last_steps_only():
    rates = [learning_rate(step, 10, "wsd", warmup=0.2, final=0.5, decay=0.4) for step in range(3, 11)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.875, 0.75, 0.625, 0.5])


def test_wsd_never_decays_before_it_has_warmed_up():
    rates = [learning_rate(step, 10, "wsd", warmup=0.5, final=0, decay=1) for step in range(1, 11)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 0.8, 0.6, 0.4, 0.2, 0])


@pytest.mark.parametrize(
    ("number", "num_steps", "steps"),
    [(4, 100, {25, 50, 75, 100}), (3, 10, {3, 7, 10}), (20, 3, {1, 2, 3}), (1, 7, {7}), (2, 1, {1})],
)
def test_evenly_spaced_steps_end_with_the_last(number, num_steps, steps):
    assert evenly_spaced(number, num_steps) == steps


@pytest.mark.parametrize(
    ("losses", "step"),
    [([1.0, 2.0], None), ([], None), ([1.0, math.nan, math.inf], 9), ([math.inf, 1.0, 1.0], 8), ([1.0, -math.inf], 10)],
)
def test_the_first_loss_that_is_no_number_gives_the_step(losses, step):
    assert diverged_step(10, losses) == step
