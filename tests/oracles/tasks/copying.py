"""Copying and palindromes, token by token."""

import numpy as np

from archlab.tasks import IGNORE, Task, setting


def copying(task: Task, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    half = task.length // 2
    data = [int(rng.integers(task.vocab_size - 1)) for _ in range(half)]
    again = data[::-1] if task.name == "palindrome" else data
    return [*data, task.vocab_size - 1, *again[:-1]], [IGNORE] * half + again


GENERATORS = {"copying": copying, "palindrome": copying}
SETTINGS = [setting("copying", length=2, vocab_size=3)]
TINY = [setting("copying", length=6, vocab_size=4), setting("palindrome", length=6, vocab_size=4)]
