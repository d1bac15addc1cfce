"""A needle among distractors: pairs are put into a list of noise at random places."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.needle import Needle


def needle(task: Needle, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    keys = task.vocab_size // 4
    pairs = [
        (int(key), int(rng.integers(keys, 2 * keys))) for key in rng.choice(keys, size=task.num_distractors + 1, replace=False)
    ]
    noise = task.length - 2 - 2 * len(pairs)
    things: list[tuple[int, ...]] = [*pairs, *((int(rng.integers(2 * keys, task.vocab_size - 1)),) for _ in range(noise))]
    order = rng.permutation(len(things))
    key, value = pairs[int(rng.integers(len(pairs)))]
    tokens = [token for index in order for token in things[index]]
    return [*tokens, task.vocab_size - 1, key], [IGNORE] * (task.length - 1) + [value]


GENERATORS = {"needle": needle}
SETTINGS = [setting("needle", vocab_size=10, num_distractors=0, length=4)]
TINY = [setting("needle", vocab_size=10, length=7, num_distractors=1)]
