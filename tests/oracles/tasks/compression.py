"""Compression, token by token."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.compression import Compression


def compression(task: Compression, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    compress = task.vocab_size - 1
    tokens = [int(rng.choice(compress)) for _ in range(task.num_tokens or task.length - 1)]
    if not task.num_tokens:
        return [*tokens, compress], [*tokens, compress]
    before = task.length - 1 - task.num_tokens
    return [compress] * before + [*tokens, compress], [IGNORE] * before + [*tokens, IGNORE]


def compression_by_numpy(task: Compression, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    tokens = [*rng.choice(task.vocab_size - 1, size=task.length - 1).tolist(), task.vocab_size - 1]
    return tokens, list(tokens)


GENERATORS = {"compression": compression}
NUMPY_GENERATORS = {"compression": compression_by_numpy}
SETTINGS = [setting("compression", vocab_size=3, length=2)]
TINY = [setting("compression", vocab_size=4, length=4), setting("compression", vocab_size=4, length=5, num_tokens=2)]
