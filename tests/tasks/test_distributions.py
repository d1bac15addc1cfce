"""The vectorised generators draw the same distributions as generators that draw one instance at a time."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from archlab.tasks import IGNORE, Task, registry, setting
from tests.oracles.tasks import GENERATORS, NUMPY_GENERATORS, TINY, generate

LEAST_P = 1e-3
"""None of the comparisons, whose seeds are fixed, may be less likely than this."""


def p_of_same_distribution(first: Counter, second: Counter) -> float:
    """Chi-square test that two samples of categories come from one distribution; rare categories are taken together."""
    kept = [c for c in first | second if first[c] + second[c] >= 20]
    rows = [[sample[c] for c in kept] for sample in (first, second)]
    for row, sample in zip(rows, (first, second), strict=True):
        row.append(sample.total() - sum(row))
    table = np.array(rows)
    table = table[:, table.sum(axis=0) > 0]
    return chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0


def test_every_task_has_an_oracle_and_settings_to_count():
    assert set(GENERATORS) == set(registry()) == {task.name for task in TINY}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("task", TINY, ids=str)
def test_whole_sequences_are_as_frequent(task: Task, training: bool):
    def counted(inputs: np.ndarray, targets: np.ndarray) -> Counter:
        return Counter(row.tobytes() for row in np.concatenate([inputs, targets], axis=1).astype(np.int16))

    reference = counted(*generate(task, np.random.default_rng(1), 4000, training))
    drawn = counted(*task.generate(np.random.default_rng(2), 40_000, training=training))
    assert p_of_same_distribution(drawn, reference) > LEAST_P


@pytest.mark.parametrize("name", NUMPY_GENERATORS)
def test_instance_generators_agree(name: str):
    task = next(task for task in TINY if task.name == name)
    rng = np.random.default_rng(5)
    samples = [
        Counter(tuple(generator(task, rng, False)[0]) for _ in range(4000))
        for generator in (GENERATORS[name], NUMPY_GENERATORS[name])
    ]
    assert p_of_same_distribution(*samples) > LEAST_P


def answers_in_a_sequence(inputs: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    return (targets != IGNORE).sum(axis=1) // 3


def different_tokens(inputs: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    return (np.diff(np.sort(inputs, axis=1), axis=1) > 0).sum(axis=1)


def first_token_at_several_places(inputs: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    """Place and token, at eight places: how tokens are distributed over the sequence."""
    places = np.linspace(0, inputs.shape[1] - 1, 8).astype(int)
    return (np.arange(8) * task.vocab_size + inputs[:, places]).ravel()


def last_input_was_last_seen(inputs: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    """Positions since the last input last stood in the sequence."""
    same = inputs[:, -2::-1] == inputs[:, -1:]
    return np.where(same.any(axis=1), same.argmax(axis=1), -1) // 4


def padding(inputs: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    """Tokens equal to the first one in a row at the left."""
    return (inputs != inputs[:, :1]).argmax(axis=1)


FEATURES = [answers_in_a_sequence, different_tokens, first_token_at_several_places, last_input_was_last_seen, padding]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", sorted(registry()))
def test_base_settings_agree_in_what_can_be_counted(name: str, training: bool):
    task = setting(name, length=64)
    reference = generate(task, np.random.default_rng(3), 800, training)
    drawn = task.generate(np.random.default_rng(4), 8000, training=training)
    for feature in FEATURES:
        p = p_of_same_distribution(Counter(feature(*drawn, task).tolist()), Counter(feature(*reference, task).tolist()))
        assert p > LEAST_P, feature.__name__
