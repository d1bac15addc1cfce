"""Multi-query associative recall, distance by distance."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.mqar import MQAR


def mqar(task: MQAR, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    half, pairs = task.vocab_size // 2, task.num_pairs
    keys = [int(key) for key in rng.choice(half, size=pairs, replace=False)]
    values = [int(rng.integers(half, task.vocab_size)) for _ in keys]
    tokens = [token for pair in zip(keys, values, strict=True) for token in pair]
    tokens += [int(rng.integers(task.vocab_size)) for _ in range(task.length - 2 * pairs)]
    targets = [IGNORE] * task.length
    distances = np.arange(1, (task.length - 2 * pairs) // 2 + 1)
    left = list(range(len(distances)))
    for key, value in zip(keys, values, strict=True):
        weights = distances[left] ** (task.power - 1)
        taken = left.pop(int(rng.choice(len(left), p=weights / weights.sum())))
        tokens[2 * pairs + 2 * taken], targets[2 * pairs + 2 * taken] = key, value
    return tokens, targets


GENERATORS = {"mqar": mqar}
SETTINGS = [setting("mqar", vocab_size=4, num_pairs=2, length=8), setting("mqar", vocab_size=1024, num_pairs=32, length=256)]
TINY = [setting("mqar", vocab_size=4, length=8, num_pairs=1, power=2.0)]
