import json
import re
from dataclasses import asdict

import pytest

from archlab.errors import ArchlabError
from archlab.fields import read_fields
from archlab.mad.recipe import Recipe


def test_the_defaults_are_the_papers():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.schedule) == (200, 128, "cosine")
    assert (recipe.beta1, recipe.beta2) == (0.9, 0.98)
    assert (recipe.norm, recipe.embedding_std, recipe.num_evaluation) == ("rmsnorm", 0.02, 1280)
    assert (recipe.metric, recipe.select_on) == ("accuracy", "validation")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "linear"}, "recipe: schedule='linear': give one of cosine, constant, wsd"),
        ({"precision": "fp16"}, "recipe: precision='fp16': give one of fp32, bf16"),
        ({"norm": None}, "recipe: norm=None: give one of rmsnorm, layernorm"),
        ({"metric": ["accuracy"]}, "recipe: metric=['accuracy']: give one of accuracy, macro-accuracy"),
        ({"steps": 1.5}, "recipe: steps=1.5: give a whole number of at least 0"),
        ({"steps": True}, "recipe: steps=True: give a whole number of at least 0"),
        ({"warmup": "0.1"}, "recipe: warmup='0.1': give a number from 0 to 0.999"),
        ({"decay_all": 1}, "recipe: decay_all=1: give true or false"),
        ({"steps": -1}, "recipe: steps=-1: give a whole number of at least 0"),
        ({"epochs": 0}, "recipe: epochs=0: give a whole number of at least 1"),
        ({"batch_size": 0}, "recipe: batch_size=0: give a whole number of at least 1"),
        ({"num_evaluation": 0}, "recipe: num_evaluation=0: give a whole number of at least 1"),
        ({"warmup": 1.0}, "recipe: warmup=1.0: give a number from 0 to 0.999"),
        ({"final_lr": 1.5}, "recipe: final_lr=1.5: give a number from 0 to 1"),
        ({"beta2": 1.0}, "recipe: beta2=1.0: give a number from 0 to 0.99999"),
        ({"embedding_std": 0.0}, "recipe: embedding_std=0.0: give a number from 1e-06 to 100"),
        ({"grad_clip": float("nan")}, "recipe: grad_clip=nan: give a finite number of at least 0"),
        ({"stop_accuracy": float("inf")}, "recipe: stop_accuracy=inf: give a finite number of at least 0.001"),
        ({"epoch": 3}, "recipe: unknown field 'epoch': did you mean 'epochs'?"),
    ],
)
def test_what_cannot_be_is_refused_with_field_value_and_fix(values, message):
    with pytest.raises(ArchlabError, match=f"^{re.escape(message)}$"):
        read_fields(Recipe, values, "recipe")


def test_whole_numbers_are_taken_for_fractions():
    recipe = Recipe(grad_clip=1, warmup=0)
    assert recipe == Recipe(grad_clip=1.0)
    assert type(recipe.grad_clip) is float


@pytest.mark.parametrize(
    ("values", "examples", "steps", "seen"),
    [
        ({"epochs": 200}, 12_800, 20_000, 200 * 12_800),
        ({"epochs": 3}, 800, 21, 2400),  # the seventh batch of an epoch has 32 sequences
        ({"epochs": 3}, 100, 3, 300),
        ({"steps": 10}, 800, 10, 800 + 3 * 128),
        ({"steps": 14}, 800, 14, 1600),
        ({"steps": 10, "epochs": 7}, 12_800, 10, 1280),
    ],
)
def test_steps_and_examples(values, examples, steps, seen):
    recipe = Recipe(**values)
    assert recipe.num_steps(examples) == steps
    assert recipe.num_examples(examples) == seen


def test_the_smaller_last_batch_of_an_epoch_is_counted_as_it_is():
    assert Recipe(steps=7, batch_size=32).num_examples(70) == 2 * 70 + 32


def test_round_trip_through_json():
    recipe = Recipe(steps=7, warmup=0.1, schedule="constant", decay_all=True, metric="macro-accuracy")
    assert read_fields(Recipe, json.loads(json.dumps(asdict(recipe)))) == recipe


def test_wsd_is_stable_before_it_decays():
    recipe = Recipe(steps=10, schedule="wsd", warmup=0.2, decay=0.4, final_lr=0.5)
    assert [recipe.rate(step, 10) for step in (1, 3, 6, 8, 10)] == pytest.approx([0.5, 1, 1, 0.75, 0.5])
