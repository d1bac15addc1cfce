import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.mad.trials import COPYING, MEMORY, RECALL, train, trial

from archlab.architectures import architecture
from archlab.mad import train as train_module
from archlab.mad.learner import split_tensors
from archlab.mad.programs import Eager
from archlab.mad.recipe import by_level
from archlab.mad.trial import TrialResult
from archlab.tasks import setting
from archlab.training.context import flushed_denormals

COSTS = ("examples_per_second", "wall_seconds", "cpu_seconds")


def numbers(result):
    """Everything that a result says but how long it took."""
    return {name: value for name, value in result.to_dict().items() if name not in COSTS}


@pytest.mark.parametrize("spec", ["mh-attention(heads=2) swiglu", "1*mamba mlp", "hyena mh-gated-linear-attention(heads=2)"])
@pytest.mark.parametrize(
    "task", [COPYING, setting("compression", length=6, num_train_examples=64)], ids=["copying", "compression"]
)
def test_the_same_trial_gives_the_same_bits_whatever_was_drawn_before(spec, task):
    first = train(trial(spec, task))
    torch.manual_seed(99)
    torch.randn(7)
    np.random.default_rng().random()
    assert numbers(train(trial(spec, task))) == numbers(first)
    assert numbers(train(trial(spec, task, seed=1))) != numbers(first)


def test_global_generators_are_left_as_they_were():
    torch.manual_seed(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - that one is what may not move
    train(trial())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_training_does_not_import_the_compiler():
    specs = ["mh-attention(heads=2) swiglu", "hyena mlp", "mamba swiglu"]
    code = f"import sys; from tests.mad.trials import train, trial; [train(trial(s)) for s in {specs}]; "
    code += "print('torch._dynamo' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_processor_is_left_as_it_was():
    train(trial())
    assert sys.float_info.min / 2 > 0.0
    with flushed_denormals():
        train(trial())
        assert sys.float_info.min / 2 == 0.0
    assert sys.float_info.min / 2 > 0.0


def test_architectures_see_the_same_batches_in_the_same_order(monkeypatch):
    seen: list[list[bytes]] = []
    step = Eager.step

    def watched(self, batches):
        taken = self.learners[0].examples.take(batches[0])
        seen[-1].append(b"".join(x.numpy().tobytes() for x in taken))
        return step(self, batches)

    monkeypatch.setattr(Eager, "step", watched)
    for value in (trial("mh-attention(heads=2)"), trial("1*mamba swiglu"), trial(seed=1)):
        seen.append([])
        train(value)
    assert len(seen[0]) == 6
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_a_finished_trial_says_what_it_did():
    result = train(trial())
    assert (result.status, result.steps, result.solved_step, result.selected_step) == ("finished", 6, None, 6)
    assert [point.step for point in result.curve] == [2, 4, 6]
    assert result.selected == result.curve[-1].metrics
    assert result.test == result.test_last
    assert result.numerators.shape == result.denominators.shape == (40,)
    assert set(result.denominators) == {COPYING.num_tokens_to_copy}
    assert result.score == pytest.approx(result.test.accuracy)
    assert all(getattr(result, name) > 0 for name in COSTS)


def test_the_curves_training_losses_are_means_since_the_previous_point(monkeypatch):
    losses = iter([1.0, 2.0, 3.0, 5.0, 10.0, 20.0])
    monkeypatch.setattr(Eager, "step", lambda *_: torch.tensor([next(losses)]))
    assert [point.train_loss for point in train(trial()).curve] == [1.5, 4.0, 15.0]


def test_training_stops_once_solved():
    result = train(trial(stop_accuracy=0.001, metric="accuracy"))
    assert result.solved_step == result.steps == result.selected_step == 2
    assert [point.step for point in result.curve] == [2]
    assert train(trial(stop_accuracy=1.1)).solved_step is None


@pytest.mark.parametrize("metric", ["accuracy", "macro-accuracy"])
def test_the_best_checkpoint_is_that_of_the_lowest_loss_on_the_selection_split(metric):
    recipe = {"schedule": "constant", "checkpoint": "best", "steps": 24, "evaluations": 8, "metric": metric, "stop_accuracy": 2.0}
    result = train(trial(learning_rate=0.1, **recipe))
    best = min(result.curve, key=lambda point: point.metrics.loss)
    assert best.step < result.steps  # else the case shows nothing
    assert result.selected_step == best.step
    assert result.selected == best.metrics
    until_best = train(trial(learning_rate=0.1, **recipe | {"steps": best.step, "evaluations": 1, "checkpoint": "last"}))
    assert result.test == until_best.test_last
    assert np.array_equal(result.numerators, until_best.numerators)
    assert result.test_last == train(trial(learning_rate=0.1, **recipe | {"checkpoint": "last"})).test


def test_selection_on_the_test_split_is_selection_on_what_is_scored():
    on_test, on_validation = train(trial(select_on="test")), train(trial())
    assert on_test.selected == on_test.test
    assert on_validation.selected != on_validation.test
    assert on_test.test == on_validation.test


def test_the_macro_score_has_batches_as_units():
    result = train(trial(metric="macro-accuracy", num_evaluation=130))
    assert result.denominators.tolist() == [128.0, 2.0]
    assert result.score == pytest.approx(result.test.macro_accuracy, abs=1e-6)


def test_progress_is_reported_after_every_evaluation():
    heard = []
    result = train(trial(), heard.append)
    assert [(p.step, p.num_steps) for p in heard] == [(2, 6), (4, 6), (6, 6)]
    assert [p.accuracy for p in heard] == pytest.approx([point.metrics.accuracy for point in result.curve])
    assert all(p.examples_per_second > 0 for p in heard)


def test_progress_is_reported_between_evaluations_too(monkeypatch):
    monkeypatch.setattr(train_module, "REPORT_SECONDS", 0.0)
    heard = []
    train(trial(), heard.append)
    assert [p.step for p in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[0].accuracy is None
    assert heard[2].accuracy == heard[1].accuracy


def lossy(bad_step, loss):
    """A training step that gives this loss at one step, and the true one otherwise."""
    step, count = Eager.step, iter(range(1, 1000))

    def broken(*args):
        found = step(*args)
        return torch.tensor([loss]) if next(count) == bad_step else found

    return broken


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(("bad_step", "points"), [(1, 0), (2, 0), (3, 1), (6, 2)])
@pytest.mark.parametrize("metric", ["accuracy", "macro-accuracy"])
def test_a_loss_that_is_no_number_ends_the_trial_at_chance(monkeypatch, loss, bad_step, points, metric):
    monkeypatch.setattr(Eager, "step", lossy(bad_step, loss))
    value = trial(metric=metric, num_evaluation=130)
    result = train(value)
    assert (result.status, result.steps, result.selected_step, result.solved_step) == ("diverged", bad_step, bad_step, None)
    assert len(result.curve) == points
    assert result.score == pytest.approx(COPYING.chance, abs=1e-6)
    assert result.selected.accuracy == result.test.macro_accuracy == result.test_last.accuracy == COPYING.chance
    assert result.test.loss == pytest.approx(math.log(COPYING.vocab_size))
    healthy = train_healthy(monkeypatch, value)
    assert np.array_equal(result.denominators, healthy.denominators)
    json.dumps(result.to_dict(), allow_nan=False)


def train_healthy(monkeypatch, value):
    monkeypatch.undo()
    return train(value)


def test_a_loss_that_is_no_number_is_noticed_without_waiting_for_an_evaluation(monkeypatch):
    monkeypatch.setattr(Eager, "step", lossy(3, math.nan))
    heard = []
    result = train(trial(steps=400, evaluations=1), heard.append)
    assert (result.status, result.steps) == ("diverged", 3)
    assert all(progress.accuracy is None for progress in heard)
    assert result.examples_per_second < 50 * 16 / 1e-3  # fifty steps take more than a millisecond


@pytest.mark.parametrize("steps", [1, 5])
def test_a_learning_rate_that_is_far_too_large_diverges(steps):
    result = train(trial(learning_rate=1e30, steps=steps, evaluations=1))
    assert result.status == "diverged"
    json.dumps(result.to_dict(), allow_nan=False)


def test_half_precision_trains_and_differs():
    half, full = train(trial(precision="bf16")), train(trial())
    assert half.status == "finished"
    assert math.isfinite(half.test.loss)
    assert half.test.loss != full.test.loss
    assert half.test.loss == pytest.approx(full.test.loss, rel=0.05)


def test_layernorm_and_the_references_initialisation_change_the_result():
    compression = setting("compression", length=6, num_train_examples=64)
    losses = [train(trial(task=compression, **r)).test.loss for r in ({}, {"norm": "layernorm"}, {"reference_init": True})]
    assert len(set(losses)) == 3
    assert train(trial(reference_init=True)).test != train(trial()).test


def test_the_model_follows_from_the_seed_and_not_from_the_data():
    first, same, other = (
        train_module.build_model(trial(task=replace(RECALL, num_train_examples=n), seed=seed))
        for n, seed in ((50, 0), (60, 0), (50, 1))
    )
    for name, parameter in first.state_dict().items():
        assert torch.equal(parameter, same.state_dict()[name])
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_attention_learns_to_copy_selectively():
    value = replace(
        trial(
            task=replace(COPYING, num_train_examples=4096),
            steps=300,
            batch_size=64,
            evaluations=6,
            num_evaluation=256,
            warmup=0.1,
        ),
        dim=32,
        architecture=architecture("2*[mh-attention(heads=2) swiglu]"),
    )
    result = train(value)
    assert result.score > 0.95
    assert result.score > 10 * COPYING.chance


def test_memorizing_takes_a_layer_that_looks_back():
    recipe = {"steps": 150, "batch_size": 32, "evaluations": 5, "warmup": 0.1}
    solved = train(trial("mh-attention(heads=2) swiglu", MEMORY, **recipe))
    blind = train(trial("swiglu", MEMORY, **recipe))
    assert solved.solved_step is not None
    assert solved.score > 0.99
    assert blind.score < 3 * MEMORY.chance


def test_a_training_over_a_threshold_is_dropped_with_its_scores_so_far():
    whole = train(trial())
    first, second, *_ = whole.curve
    dropped = train(trial(), thresholds={first.step: first.metrics.loss, second.step: second.metrics.loss - 1e-6})
    assert (dropped.status, dropped.steps, dropped.solved_step) == ("dropped", second.step, None)
    assert dropped.curve == (first, second)
    assert dropped.test == dropped.test_last
    assert dropped.denominators.sum() == whole.denominators.sum()
    assert train(trial(), thresholds={first.step: first.metrics.loss}).status == "finished"


def test_the_final_weights_are_tested_at_other_lengths_too():
    """At the training's own length the score is that of the test split; a task that poses nothing new there has none."""
    parity = trial(task=setting("parity", length=8, num_train_examples=64), test_lengths=(8, 32))
    found = train(parity)
    assert [length for length, _ in found.by_length] == [8, 32]
    assert found.by_length[0][1] == found.score
    assert json.loads(json.dumps(found.to_dict()))["by_length"] == [list(pair) for pair in found.by_length]
    assert TrialResult.from_dict(json.loads(json.dumps(found.to_dict()))).by_length == found.by_length
    assert train(trial(task=MEMORY, test_lengths=(64,))).by_length == ()


def test_levels_are_trained_together_and_tested_apart():
    """A third of the sequences of each split is drawn from each level, and the score is the mean over the levels."""
    task, levels = replace(COPYING, num_train_examples=90), (1, 2, 4)
    found = train(trial(task=task, levels=levels, num_evaluation=60))
    for name, split, n in (("validation", "validation", 60), ("training", "train", 90)):
        inputs, _ = split_tensors(task, split, n, 0, "cpu", levels)
        copied = (inputs < task.vocab_size - 2).sum(dim=1)
        assert copied.tolist() == [level for level in levels for _ in range(n // 3)], name
    scores = [float(part.mean()) for part in by_level(levels, found.numerators)]
    assert set(found.denominators.tolist()) == {1.0}
    assert found.score == pytest.approx(np.mean(scores)) == found.test.accuracy
    assert train(trial(task=task, levels=levels, learning_rate=1e30)).score == pytest.approx(task.chance)


def test_the_rate_decays_early_where_the_loss_is_flat(monkeypatch):
    """With a rate of next to nothing the loss is flat: at an eighth of the steps the decay begins, and ends at an evaluation. Not
    so while the loss is that of guessing: that is the plateau on which many trainings begin."""
    rates = []
    set_rate = train_module.set_learning_rate
    monkeypatch.setattr(
        train_module, "set_learning_rate", lambda optimizer, rate: (rates.append(rate), set_rate(optimizer, rate))
    )
    recipe = {"steps": 80, "evaluations": 40, "schedule": "wsd", "decay": 0.5, "warmup": 0.05, "learning_rate": 1e-9}
    assert train(trial(**recipe)).steps == 80
    assert train(trial(**recipe, flat=0.01)).steps == 80
    monkeypatch.setattr(train_module, "LEARNING", 2.0)
    rates.clear()
    early = train(trial(**recipe, flat=0.01))
    assert early.steps == 20 == early.curve[-1].step == early.selected_step
    assert rates[4:10] == [1e-9] * 6
    assert rates[10:] == pytest.approx([1e-9 * (9 - i) / 10 for i in range(10)])
    assert train(trial(**recipe | {"learning_rate": 5e-3}, flat=1e-6)).steps == 80
