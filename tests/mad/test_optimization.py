from dataclasses import replace
from itertools import islice

import pytest
import torch
from tests.mad.trials import COPYING, RECALL, trial
from torch.nn import functional as F

from archlab.mad.learner import Examples, Learner
from archlab.mad.programs import Eager
from archlab.mad.recipe import Recipe
from archlab.mad.train import batches, build_model
from archlab.tasks import IGNORE, sample
from archlab.training.optimiser import make_optimizer


def test_warm_up_is_linear_and_cosine_ends_at_the_final_rate():
    recipe = Recipe(warmup=0.2, final_lr=0.1)
    shares = [recipe.rate(step, 50) for step in range(1, 51)]
    assert shares[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert shares[10] == 1.0
    assert shares[-1] == pytest.approx(0.1)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    middle = Recipe().rate(51, 101)
    assert middle == pytest.approx(0.5)


def test_a_constant_schedule_stays_at_the_peak_after_warm_up():
    recipe = Recipe(schedule="constant", warmup=0.5)
    assert [recipe.rate(step, 4) for step in range(1, 5)] == [0.5, 1.0, 1.0, 1.0]
    assert {Recipe(schedule="constant").rate(step, 9) for step in range(1, 10)} == {1.0}


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(warmup=0.999), Recipe(schedule="constant")])
def test_a_single_step_is_taken_at_the_peak(recipe):
    assert recipe.rate(1, 1) == 1.0


@pytest.mark.parametrize(
    ("recipe", "num_steps", "examples", "steps"),
    [
        (Recipe(evaluations=4), 100, 1000, {25, 50, 75, 100}),
        (Recipe(evaluations=3), 10, 1000, {3, 7, 10}),
        (Recipe(evaluations=20), 3, 1000, {1, 2, 3}),
        (Recipe(evaluations=1), 7, 1000, {7}),
        (Recipe(evaluations=0, batch_size=10), 12, 40, {4, 8, 12}),
        (Recipe(evaluations=0, batch_size=10), 10, 35, {4, 8, 10}),
        (Recipe(evaluations=0), 5, 12_800, {5}),
    ],
)
def test_evaluations_are_evenly_spaced_or_one_an_epoch_and_end_with_the_last_step(recipe, num_steps, examples, steps):
    assert replace(recipe, steps=num_steps).evaluation_steps(examples) == steps


def test_an_epoch_is_a_permutation_with_a_smaller_last_batch():
    epochs = [list(islice(stream, 4)) for stream in [batches(35, 10, seed=3)] for _ in range(3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [10, 10, 10, 5]
        assert sorted(torch.cat(epoch).tolist()) == list(range(35))
    orders = [tuple(torch.cat(epoch).tolist()) for epoch in epochs]
    assert len(set(orders)) == 3


def test_the_order_follows_from_the_seed():
    def first(seed):
        return torch.cat(list(islice(batches(35, 10, seed), 8))).tolist()

    assert first(3) == first(3)
    assert first(3) != first(4)


def _decayed(spec, **recipe):
    value = trial(spec, weight_decay=0.1, **recipe)
    model = build_model(value)
    optimizer = make_optimizer(
        model,
        learning_rate=value.learning_rate,
        weight_decay=value.weight_decay,
        betas=(value.recipe.beta1, value.recipe.beta2),
        decay_all=value.recipe.decay_all,
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == set(names.values())
    assert optimizer.defaults["betas"] == (value.recipe.beta1, value.recipe.beta2)
    assert optimizer.defaults["fused"]
    return model, decay


def test_only_matrices_decay_and_neither_embeddings_nor_what_a_layer_exempts():
    model, decay = _decayed("hyena 1*mamba swiglu")
    exempted = {name for name, p in model.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert any("layers.0" in name for name in exempted)
    assert any("layers.1" in name for name in exempted)
    for name, parameter in model.named_parameters():
        is_exempt = name in exempted or parameter.ndim < 2 or name == "embedding.weight"
        assert decay[name] == (0.0 if is_exempt else 0.1), name
    assert decay["unembedding.weight"] == 0.1


def test_decay_all_decays_all():
    _, decay = _decayed("hyena 1*mamba swiglu", decay_all=True, beta2=0.999)
    assert set(decay.values()) == {0.1}


@pytest.mark.parametrize("task", [COPYING, RECALL], ids=["copying", "recall"])
def test_the_loss_at_answers_is_the_whole_sequences_with_the_rest_ignored(task):
    value = trial("1*mamba swiglu", task)
    inputs, targets = (torch.from_numpy(x) for x in sample(task, "train" if task is COPYING else "validation", 16, 0))
    assert (targets == IGNORE).any()

    plain = build_model(value).double()
    loss = F.cross_entropy(plain(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    loss.backward()

    model = build_model(value).double()
    optimizer = _KeepGradients(model)
    assert step(model, optimizer, inputs, targets, value.recipe) == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(
            optimizer.gradients[name], parameter.grad, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_gradients_are_clipped_if_asked():
    value = trial(grad_clip=1e-3)
    inputs, targets = (torch.from_numpy(x) for x in sample(COPYING, "train", 16, 0))
    for recipe, clipped in ((value.recipe, True), (trial().recipe, False)):
        model = build_model(value)
        optimizer = _KeepGradients(model)
        step(model, optimizer, inputs, targets, recipe)
        norm = torch.cat([g.flatten() for g in optimizer.gradients.values()]).norm()
        assert (norm <= 1.001e-3) == clipped


def step(model, optimizer, inputs, targets, recipe) -> float:
    """The loss of one step on all of the examples."""
    learner = Learner(model, optimizer, Examples.of(inputs, targets), recipe)
    return Eager([learner]).step([torch.arange(len(inputs))]).item()


class _KeepGradients:
    """An optimiser that looks at the gradients instead of using them."""

    def __init__(self, model):
        self.model = model

    def step(self):
        self.gradients = {name: p.grad.clone() for name, p in self.model.named_parameters()}

    def zero_grad(self):
        self.model.zero_grad()
