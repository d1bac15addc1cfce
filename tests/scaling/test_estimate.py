"""What runs will take: timed where that is quick, extended from there."""

from functools import partial

import pytest
import torch

from archlab.scaling import estimate
from archlab.scaling.estimate import device_bytes, measured_costs, stated_costs
from archlab.scaling.ladder import Ladder
from archlab.scaling.objective import NextToken
from archlab.scaling.planner import make_plan
from archlab.scaling.recipe import LMRecipe
from archlab.training.memory import step_bytes

RUNS = make_plan(Ladder(name="test", budgets=(2e11,), sizes=4, vocab_size=99, seeds=(0, 1)), ["transformer++", "attention"]).runs


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Widths of the sizes that were timed; a step of width w takes w seconds."""
    widths: list[int] = []

    def seconds(run) -> float:
        widths.append(run.dim)
        return float(run.dim)

    monkeypatch.setattr(estimate, "_step_seconds", seconds)
    monkeypatch.setattr(estimate, "_peak_bytes", lambda run: 0)
    monkeypatch.setattr(estimate, "_NEXT_STEP", 1.001)
    return widths


def test_every_size_is_timed_once(timed: list[int]):
    costs = measured_costs(RUNS)
    assert [cost.seconds for cost in costs] == pytest.approx([run.dim * run.steps for run in RUNS])
    assert len(timed) == len(RUNS) / 2


def test_a_timed_size_stands_for_those_whose_steps_are_hardly_larger(timed: list[int], monkeypatch: pytest.MonkeyPatch):
    runs = sorted((run for run in RUNS if run.label == "attention" and run.seed == 0), key=lambda run: run.flops / run.steps)
    steps = [run.flops / run.steps for run in runs]
    monkeypatch.setattr(estimate, "_NEXT_STEP", steps[2] / steps[0])
    costs = measured_costs(runs)
    assert timed == [runs[0].dim, runs[2].dim]
    assert costs[1].seconds / runs[1].flops == pytest.approx(costs[0].seconds / runs[0].flops)


def test_expensive_steps_have_the_speed_of_the_largest_that_was_timed(timed: list[int], monkeypatch: pytest.MonkeyPatch):
    runs = [run for run in RUNS if run.seed == 0]
    second = runs[1]
    monkeypatch.setattr(estimate, "_MOST_EXPENSIVE_STEP", second.flops / second.steps)
    costs = dict(zip(runs, measured_costs(runs), strict=True))
    assert set(timed) == {run.dim for run in runs if run.dim <= second.dim}
    last = runs[3]
    assert last.label == second.label
    assert costs[last].seconds / last.flops == pytest.approx(costs[second].seconds / second.flops)


def test_memory_grows_with_the_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "_step_seconds", lambda run: 1.0)
    one, other = measured_costs([RUNS[0], RUNS[6]])
    assert 16 * RUNS[0].params < one.bytes < other.bytes


def test_memory_is_counted_at_the_largest_size_alone(timed: list[int], monkeypatch: pytest.MonkeyPatch):
    counted: list[int] = []
    monkeypatch.setattr(estimate, "_peak_bytes", lambda run: counted.append(run.params) or 3 * device_bytes(run, LMRecipe()))
    costs = dict(zip(RUNS, measured_costs(RUNS), strict=True))
    assert counted == [max(run.params for run in RUNS if run.label == label) for label in ("transformer++", "attention")]
    assert all(cost.bytes == 3 * device_bytes(run, LMRecipe()) for run, cost in costs.items())


def test_a_step_is_timed():
    assert 0 < estimate._step_seconds(RUNS[0]) < 10


def test_on_paper_a_stated_speed_counts():
    assert [cost.seconds for cost in stated_costs(RUNS, lambda label: 1e9)] == [run.flops / 1e9 for run in RUNS]


@pytest.mark.parametrize(("recompute", "micro_batch"), [(False, 2), (True, 2), (False, 0), (True, 4)])
def test_memory_of_an_accelerator_is_near_that_of_a_step_without_data(recompute: bool, micro_batch: int):
    ladder = Ladder(name="test", budgets=(4e16,), sizes=1, vocab_size=4096, length=512, batch_size=4)
    run = make_plan(ladder, ["transformer++"]).runs[0]
    recipe = LMRecipe(precision="bf16", recompute=recompute, micro_batch=micro_batch)
    tokens = torch.zeros(micro_batch or 4, run.length + 1, dtype=torch.int64)
    model = partial(run.architecture.build, vocab_size=run.vocab_size, max_length=run.length, dim=run.dim, backbone=run.backbone)
    found = step_bytes(4 * run.params, lambda: NextToken(model(), recipe), lambda one, mode: one(mode.from_tensor(tokens)))
    assert found < 1.1 * device_bytes(run, recipe)
    assert device_bytes(run, recipe) < 1.5 * found
    assert device_bytes(run, recipe, gpus=4) < device_bytes(run, recipe)


def test_on_paper_every_expert_takes_time():
    runs = make_plan(Ladder(name="test", budgets=(2e11,), sizes=1, vocab_size=99), ["mh-attention moe"]).runs
    assert stated_costs(runs, lambda label: 1e9)[0].seconds > runs[0].flops / 1e9
