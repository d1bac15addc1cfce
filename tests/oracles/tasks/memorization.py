"""Memorization, key by key."""

from functools import cache

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.memorization import Memorization


def memorization(task: Memorization, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    value_of = _map(task)
    tokens: list[int] = []
    targets: list[int] = []
    for _ in range(task.length // 2):
        key = int(rng.choice(len(value_of)))
        tokens += [key, task.vocab_size - 1]
        targets += [IGNORE, value_of[key]]
    return tokens, targets


@cache
def _map(task: Memorization) -> dict[int, int]:
    num_keys = (task.vocab_size - 1) // 2
    values = np.random.default_rng(task.map_seed).permutation(np.arange(num_keys, task.vocab_size - 1))
    return {key: int(values[key]) for key in range(num_keys)}


GENERATORS = {"memorization": memorization}
SETTINGS = [setting("memorization", vocab_size=6, length=2)]
TINY = [setting("memorization", vocab_size=6, length=6)]
