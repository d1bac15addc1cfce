from dataclasses import asdict

import pytest

from archlab.errors import ArchlabError
from archlab.fields import read_fields
from archlab.scaling.recipe import LMRecipe


def test_cosine_rises_over_the_warmup_and_falls_to_the_last_share():
    recipe = LMRecipe(warmup=0.1, final_lr=0.1)
    rates = [recipe.rate(step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_wsd_stays_at_the_peak_until_it_decays_linearly():
    recipe = LMRecipe(schedule="wsd", warmup=0.1, decay=0.2, final_lr=0.0)
    rates = [recipe.rate(step, 100) for step in range(1, 101)]
    assert rates[9:80] == [1.0] * 71
    assert rates[80:] == pytest.approx([1 - i / 20 for i in range(1, 21)])


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_trainings_have_rates_too(schedule, steps):
    recipe = LMRecipe(schedule=schedule)
    assert all(0 < recipe.rate(step, steps) <= 1 for step in range(1, steps + 1))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"schedule": "linear"}, "schedule='linear'"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"grad_clip": float("nan")}, "grad_clip=nan"),
        ({"micro_batch": 2.5}, "micro_batch=2.5"),
        ({"compiled": 1}, "compiled=1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(values, named):
    with pytest.raises(ArchlabError, match=named):
        LMRecipe(**values)


def test_it_comes_back_from_its_dictionary():
    recipe = LMRecipe(schedule="wsd", precision="bf16", weight_decay=0)
    assert read_fields(LMRecipe, asdict(recipe)) == recipe
    with pytest.raises(ArchlabError, match=r"^recipe: unknown field 'wormup': did you mean 'warmup'"):
        read_fields(LMRecipe, {"wormup": 0.1}, "recipe")


def test_warmup_and_beta2_follow_the_run_where_they_are_asked_to():
    recipe = LMRecipe(warmup="params", beta2="batch")
    small = recipe.resolved(params=1_000_000, tokens=20_000_000, batch_tokens=512 * 1024 - 1)
    assert (small.warmup, small.beta2) == (0.05, 0.99)
    large = recipe.resolved(params=1_000_000, tokens=500_000, batch_tokens=512 * 1024)
    assert (large.warmup, large.beta2) == (0.5, 0.95)
    assert LMRecipe().resolved(params=1, tokens=10, batch_tokens=1) == LMRecipe()
    assert LMRecipe(**asdict(recipe)) == recipe
