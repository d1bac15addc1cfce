"""Knobs: the impossible are refused with the reason, all others draw valid arrays."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlab.errors import ArchlabError
from archlab.tasks import IGNORE, registry, sample, setting

RECALL, NOISY, FUZZY = "in-context-recall", "noisy-in-context-recall", "fuzzy-in-context-recall"


@pytest.mark.parametrize(
    ("name", "knobs", "reason"),
    [
        (RECALL, {"length": 127}, "length=127: keys and values come in pairs"),
        (RECALL, {"length": 2}, "one pair must be shown before it is asked"),
        (RECALL, {"vocab_size": 3}, "vocab_size=3: too small for two keys and two values: give at least 4"),
        (RECALL, {"vocab_size": 4, "multi_query": False}, "give at least 5"),
        (RECALL, {"vocab_size": 1 << 40}, "vocab_size=1099511627776: give a whole number from 1 to 1048576"),
        (RECALL, {"length": 64.0}, "length=64.0: give a whole number from 1 to 1048576"),
        (
            RECALL,
            {"keys_per_sequence": 9},
            "keys_per_sequence=9: there are 8 keys: give no more, or a larger vocab_size",
        ),
        (RECALL, {"multi_query": 1}, "multi_query=1: give true or false"),
        (NOISY, {"noise_vocab_size": 0}, "frac_noise=0.2 needs a noise vocabulary: give noise_vocab_size of at least 1"),
        (NOISY, {"noise_vocab_size": -1}, "noise_vocab_size=-1: give a whole number of at least 0"),
        (NOISY, {"frac_noise": 1.0}, "frac_noise=1.0: give a number of at least 0 and below 1"),
        (NOISY, {"frac_noise": -0.1}, "frac_noise=-0.1: give a number of at least 0 and below 1"),
        (NOISY, {"frac_noise": float("nan")}, "frac_noise=nan: give a finite number"),
        (NOISY, {"vocab_size": 16}, "vocab_size=16: too small for two keys and two values: give at least 20"),
        (FUZZY, {"vocab_size": 6}, "vocab_size=6 leaves 2 tokens for keys, too few for key_motif_size=3 different ones"),
        (FUZZY, {"vocab_size": 9, "value_motif_size": 5}, "leaves 4 tokens for values, too few for value_motif_size=5"),
        (FUZZY, {"vocab_size": 1, "multi_query": False}, "leaves 0 tokens for keys"),
        (FUZZY, {"length": 12}, "length=12: the longest pair, 6 tokens, must fit in twice: give at least 13"),
        (FUZZY, {"key_motif_size": 0}, "key_motif_size=0: give a whole number of at least 1"),
        ("selective-copying", {"num_tokens_to_copy": 128}, "num_tokens_to_copy=128 does not fit in length=256"),
        ("selective-copying", {"num_tokens_to_copy": 0}, "num_tokens_to_copy=0: give a whole number of at least 1"),
        ("selective-copying", {"vocab_size": 3}, "vocab_size=3: too small for two data tokens, blank and copy: give at least 4"),
        ("compression", {"vocab_size": 2}, "vocab_size=2: too small for two data tokens and the compression token"),
        ("compression", {"length": 1}, "length=1: no room for a token before the compression token"),
        (
            "compression",
            {"num_tokens": 32},
            "num_tokens=32: the compression token stands behind them, and length=32: give at most 31",
        ),
        ("memorization", {"length": 31}, "length=31: each key is followed by an insert token: give an even length"),
        ("memorization", {"vocab_size": 4}, "vocab_size=4: too small for two keys, two values and the insert token"),
        ("memorization", {"map_seed": -1}, "map_seed=-1: give a whole number of at least 0"),
    ],
)
def test_impossible_knobs_are_refused_with_the_reason(name: str, knobs: dict[str, Any], reason: str):
    with pytest.raises(ArchlabError) as refusal:
        setting(name, **knobs)
    message = str(refusal.value)
    assert message.startswith(f"{name}: ")
    assert reason in message


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        (RECALL, {"length": 4, "vocab_size": 4}),
        (RECALL, {"vocab_size": 5, "multi_query": False}),
        (RECALL, {"keys_per_sequence": 8}),
        (FUZZY, {"keys_per_sequence": 1}),
        (NOISY, {"vocab_size": 20}),
        (FUZZY, {"vocab_size": 7, "length": 13}),
        (FUZZY, {"vocab_size": 11, "value_motif_size": 5, "length": 17}),
        ("selective-copying", {"num_tokens_to_copy": 127}),
        ("memorization", {"vocab_size": 5}),
    ],
)
def test_what_a_refusal_advises_is_accepted(name: str, knobs: dict[str, Any]):
    assert len(sample(name, "test", 3, **knobs)[0]) == 3


def test_whole_numbers_are_taken_for_fractions():
    assert setting(NOISY, frac_noise=0) == setting(NOISY, frac_noise=0.0)


def any_setting(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Knobs of a task at random, possible or not."""
    ranges: dict[str, st.SearchStrategy[Any]] = {
        "vocab_size": st.integers(0, 40),
        "length": st.integers(0, 70),
        "noise_vocab_size": st.integers(-1, 20),
        "frac_noise": st.floats(-0.1, 1.1),
        "key_motif_size": st.integers(0, 6),
        "value_motif_size": st.integers(0, 6),
        "num_tokens_to_copy": st.integers(0, 40),
        "map_seed": st.integers(-1, 2**70),
        "multi_query": st.booleans(),
    }
    knobs = setting(name).knobs()
    return st.fixed_dictionaries({}, optional={knob: ranges[knob] for knob in knobs if knob in ranges})


@pytest.mark.parametrize("name", sorted(registry()))
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@given(data=st.data())
@settings(deadline=None, derandomize=True)
def test_knobs_are_refused_or_draw_valid_arrays(name: str, training: bool, data: st.DataObject):
    knobs = data.draw(any_setting(name))
    seed = data.draw(st.integers(0, 2**32))
    try:
        task = setting(name, **knobs)
    except ArchlabError as refusal:
        reason = str(refusal)
        task = None
    if task is None:
        assert any(knob in reason for knob in knobs)
        return
    inputs, targets = task.generate(np.random.default_rng(seed), 5, training=training)
    assert inputs.shape == targets.shape == (5, task.input_length)
    assert inputs.dtype == targets.dtype == np.int64
    assert ((inputs >= 0) & (inputs < task.vocab_size)).all()
    assert ((targets == IGNORE) | ((targets >= 0) & (targets < task.vocab_size))).all()
    assert (targets != IGNORE).any(axis=1).all()
    assert 0 < task.chance <= 1
