"""Selective copying, blank by blank."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.selective_copying import SelectiveCopying


def selective_copying(task: SelectiveCopying, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    blank, copied = task.vocab_size - 2, task.num_tokens_to_copy
    data = [int(rng.choice(blank)) for _ in range(copied)]
    blanks_before = [0] * copied
    for _ in range(task.length - 2 * copied - 1):
        blanks_before[int(rng.integers(copied))] += 1
    tokens: list[int] = []
    for token, blanks in zip(data, blanks_before, strict=True):
        tokens += [blank] * blanks + [token]
    return _copied(task, tokens, data)


def selective_copying_by_numpy(task: SelectiveCopying, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    blank, copied = task.vocab_size - 2, task.num_tokens_to_copy
    data = rng.choice(blank, size=copied)
    places = rng.integers(0, copied, size=task.length - 2 * copied - 1)
    return _copied(task, np.insert(data, places, blank).tolist(), data.tolist())


def _copied(task: SelectiveCopying, context: list[int], data: list[int]) -> tuple[list[int], list[int]]:
    blank, copy = task.vocab_size - 2, task.vocab_size - 1
    return [*context, copy] + [blank] * len(data), [IGNORE] * (task.length - len(data)) + data


GENERATORS = {"selective-copying": selective_copying}
NUMPY_GENERATORS = {"selective-copying": selective_copying_by_numpy}
SETTINGS = [setting("selective-copying", num_tokens_to_copy=1, length=4, vocab_size=4)]
TINY = [setting("selective-copying", vocab_size=4, length=10, num_tokens_to_copy=3)]
