"""Each answer follows from its context (or from the map), and nothing else is asked."""

import math

import numpy as np
import pytest

from archlab.tasks import IGNORE, Task, sample, setting

N = 150

RECALL = [
    setting("in-context-recall"),
    setting("in-context-recall", vocab_size=128, length=64),
    setting("in-context-recall", multi_query=False, length=40),
    setting("noisy-in-context-recall"),
    setting("noisy-in-context-recall", frac_noise=0.8, length=32),
    setting("noisy-in-context-recall", multi_query=False, vocab_size=23, noise_vocab_size=6, length=32),
]
FUZZY = [
    setting("fuzzy-in-context-recall"),
    setting("fuzzy-in-context-recall", vocab_size=5, key_motif_size=2, value_motif_size=1),
    setting("fuzzy-in-context-recall", vocab_size=32, length=13),
    setting("fuzzy-in-context-recall", key_motif_size=5, value_motif_size=2, length=60),
    setting("fuzzy-in-context-recall", vocab_size=40, key_motif_size=16, length=90),  # more keys than 64 bits number
    setting("fuzzy-in-context-recall", multi_query=False),
]


def role_of(task: Task) -> dict[int, str]:
    return {i: role for role, ids in task.describe_tokens().items() for i in ids}


@pytest.mark.parametrize("task", RECALL, ids=str)
def test_recall_asks_the_value_of_every_key_seen_before(task: Task):
    roles = role_of(task)
    for inputs, targets in zip(*sample(task, "test", N), strict=True):
        value_of: dict[int, int] = {}
        last = len(inputs) - 1
        copies = 0
        for i, (token, target) in enumerate(zip(inputs.tolist(), targets.tolist(), strict=True)):
            role = roles[token]
            copies += role == "copy"
            if i == last:
                assert role == "key"
                assert target == value_of[token]
            elif role == "key":
                assert roles[int(inputs[i + 1])] == "value"
                known = value_of.setdefault(token, int(inputs[i + 1]))
                assert inputs[i + 1] == known
                seen = token in {int(k) for k in inputs[:i]}
                assert target == (known if seen and task.multi_query else IGNORE)
            else:
                assert target == IGNORE
        assert copies == (not task.multi_query)


@pytest.mark.parametrize("task", FUZZY, ids=str)
@pytest.mark.parametrize("split", ["train", "test"])
def test_fuzzy_recall_asks_the_value_of_every_key_seen_before(task: Task, split: str):
    roles = role_of(task)
    num_padded = 0
    for inputs, targets in zip(*sample(task, split, N), strict=True):
        tokens = inputs.tolist()
        if split == "train":
            assert (targets[:-1] == inputs[1:]).all()
        begin = next(i for i, token in enumerate(tokens) if roles[token] != "pad")
        assert begin >= 1
        num_padded += begin > 1
        value_of: dict[tuple[int, ...], tuple[int, ...]] = {}
        asked = [IGNORE] * len(tokens)
        i = begin
        while True:
            if roles[tokens[i]] == "copy":
                i += 1
                assert not task.multi_query
            key, i = run(tokens, i, roles, "key")
            value, end = run(tokens, i, roles, "value")
            assert len(key) <= task.key_motif_size
            assert split == "train" or len(key) == task.key_motif_size
            assert len(set(key)) == len(key)
            if end == len(tokens):
                break
            assert 1 <= len(value) <= task.value_motif_size
            assert len(set(value)) == len(value)
            if key in value_of and task.multi_query:
                asked[i - 1 : end - 1] = value
            assert value_of.setdefault(key, value) == value
            i = end
        probe = value_of[key]
        assert len(tokens) - (i - 1) == len(probe)
        asked[i - 1 :] = probe
        assert value == probe[:-1]
        if split == "test":
            assert targets.tolist() == asked
        else:
            assert targets[-1] == probe[-1]
    assert num_padded


def run(tokens: list[int], i: int, roles: dict[int, str], role: str) -> tuple[tuple[int, ...], int]:
    """The tokens of one role from ``i`` on, and where they end."""
    end = i
    while end < len(tokens) and roles[tokens[end]] == role:
        end += 1
    return tuple(tokens[i:end]), end


@pytest.mark.parametrize("name", ["in-context-recall", "noisy-in-context-recall", "fuzzy-in-context-recall"])
def test_training_variant_asks_every_next_token(name: str):
    inputs, targets = sample(name, "train", N)
    assert (targets[:, :-1] == inputs[:, 1:]).all()
    evaluation = setting(name).generate(np.random.default_rng(0), N, training=False)[1]
    assert (evaluation == IGNORE).any()


def test_44_percent_of_recall_is_asked_at_base():
    targets = sample("in-context-recall", "test")[1]
    assert (targets != IGNORE).mean() == pytest.approx(0.44, abs=0.005)


def test_noise_is_drawn_per_slot_and_a_context_without_a_pair_drawn_again():
    # Of two slots and the probe's, one is exempt from noise: with one of the context's two, P(two pairs) = 1/2; with the
    # probe's, 1/4, and P(no pair) = 1/4, which is drawn again. So P(two pairs) = (2/3 1/2 + 1/3 1/4) / (1 - 1/3 1/4) = 5/11.
    inputs, _ = sample("noisy-in-context-recall", "test", 100_000, length=6, frac_noise=0.5)
    noise = setting("noisy-in-context-recall").describe_tokens()["noise"]
    pairs = (inputs[:, [0, 2]] < noise.start).sum(axis=1)
    assert (pairs >= 1).all()
    assert (pairs == 2).mean() == pytest.approx(5 / 11, abs=4 * math.sqrt(0.25 / 100_000))


def test_recall_probe_is_uniform_over_the_keys_shown():
    # Where one of two keys fills all slots but one, each is asked half the time all the same.
    inputs, _ = sample("in-context-recall", "test", 20_000, vocab_size=4, length=18)
    keys = inputs[:, 0:-1:2]
    lopsided = keys.sum(axis=1) == 1
    assert lopsided.sum() > 300
    assert inputs[lopsided, -1].mean() == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / lopsided.sum()))


@pytest.mark.parametrize("knobs", [{}, {"num_tokens_to_copy": 96}, {"num_tokens_to_copy": 5, "length": 12, "vocab_size": 4}])
def test_selective_copying_asks_the_data_in_order(knobs: dict[str, int]):
    task = setting("selective-copying", **knobs)
    copied, blank, copy = task.knobs()["num_tokens_to_copy"], task.vocab_size - 2, task.vocab_size - 1
    inputs, targets = sample(task, "test", N)
    context, marker, answers = np.split(inputs, [task.length - copied - 1, task.length - copied], axis=1)
    assert (marker == copy).all()
    assert (answers == blank).all()
    assert (context[:, -1] < blank).all()
    assert (targets[:, :-copied] == IGNORE).all()
    for row, asked in zip(context, targets[:, -copied:], strict=True):
        np.testing.assert_array_equal(row[row != blank], asked)


def test_compression_asks_every_token():
    inputs, targets = sample("compression", "test", N, vocab_size=5)
    np.testing.assert_array_equal(inputs, targets)
    assert (inputs[:, -1] == 4).all()
    assert set(inputs[:, :-1].ravel()) == {0, 1, 2, 3}


def test_memorization_asks_one_map_everywhere():
    task = setting("memorization", vocab_size=33)
    value_of = task.value_of_key()
    assert len(set(value_of)) == len(value_of) == task.num_keys == 16
    assert set(value_of) == set(range(16, 32))
    for split in ("train", "test"):
        inputs, targets = sample(task, split, N)
        assert (inputs[:, 1::2] == 32).all()
        assert (targets[:, ::2] == IGNORE).all()
        assert set(inputs[:, ::2].ravel()) == set(range(16))
        np.testing.assert_array_equal(targets[:, 1::2], value_of[inputs[:, ::2]])
    assert (setting("memorization", vocab_size=33, map_seed=1).value_of_key() != value_of).any()


@pytest.mark.parametrize(("vocab_size", "ceiling"), [(1024, 1.0), (2048, 0.98), (4096, 0.86), (8192, 0.63)])
def test_memorization_is_bounded_by_the_keys_trained_on(vocab_size: int, ceiling: float):
    task = setting("memorization", vocab_size=vocab_size)
    trained = np.unique(sample(task, "train")[0])
    asked = sample(task, "test")[0][:, ::2]
    assert np.isin(asked, trained).mean() == pytest.approx(ceiling, abs=0.01)
