"""What a training step of every registered layer does on a GPU: what a CUDA graph needs, and what costs time."""

import pytest
from tests.oracles import ORACLES

from archlab.architectures import architecture
from archlab.layers.registry import registry
from archlab.mad.recipe import Recipe
from archlab.mad.roofline import step_counts
from archlab.mad.trial import Trial
from archlab.tasks import setting
from archlab.training.counting import Counts

HALVING = 0.04
"""Kernels that a step may have more for each token from length 256 to 512: scans by halving have a few for each doubling."""
GROWS = {
    **dict.fromkeys(("deltanet", "gated-deltanet", "kda", "rwkv-7", "log-linear-gated-deltanet", "log-linear-attention"), 0.13),
    **dict.fromkeys(("deltaproduct", "gated-deltaproduct", "titans"), 0.25),
    **dict.fromkeys(("gsa", "linear-attention", "mesa-net"), 0.11),
    "mh-hyena": 1.8,
    "path-attention": 3.4,
    "ttt-linear": 5.9,
}
"""The layers that have more: they pass a state from chunk to chunk by products, one after the other; mh-hyena adds products
of blocks up to length 512, where its transforms begin."""
PASSES = 8.5
"""Bytes that a step moves at most, over those of its products, transforms, attention and update."""
AT_ONCE = ("mh-attention", "min-gru")
"""The layers of the default suite."""


def counts(spec: str, length: int) -> Counts:
    task = setting("in-context-recall", vocab_size=64, length=length, num_train_examples=128)
    recipe = Recipe(batch_size=128, precision="bf16")
    return step_counts(
        Trial(architecture=architecture(spec), setting=task, recipe=recipe, dim=128, learning_rate=1e-3, weight_decay=0.1, seed=0)
    )


@pytest.mark.parametrize(
    "name", [name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.slow) for name in sorted(ORACLES)]
)
def test_a_step_waits_for_nothing_does_not_grow_in_kernels_and_moves_few_bytes(name):
    short, long = counts(f"1*{name}", 256), counts(f"1*{name}", 512)
    assert not short.waits, f"waits for the device: {dict(short.waits)}"
    grown = (long.num_kernels - short.num_kernels) / 256
    assert grown <= GROWS.get(name, HALVING), f"{grown:.2f} kernels more for each token"
    passes = long.bytes / long.least_bytes
    assert passes <= PASSES, f"{passes:.1f} times the least bytes"


def test_only_layers_that_are_known_may_grow():
    assert {*GROWS, *AT_ONCE} <= set(registry())
