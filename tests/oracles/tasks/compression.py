"""Compression, token by token."""

import numpy as np

from archlab.tasks import setting
from archlab.tasks.compression import Compression


def compression(task: Compression, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    tokens = [int(rng.choice(task.vocab_size - 1)) for _ in range(task.length - 1)] + [task.vocab_size - 1]
    return tokens, list(tokens)


def compression_by_numpy(task: Compression, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    tokens = [*rng.choice(task.vocab_size - 1, size=task.length - 1).tolist(), task.vocab_size - 1]
    return tokens, list(tokens)


GENERATORS = {"compression": compression}
NUMPY_GENERATORS = {"compression": compression_by_numpy}
SETTINGS = [setting("compression", vocab_size=3, length=2)]
TINY = [setting("compression", vocab_size=4, length=4)]
