"""A stack as a list."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.stack import Stack


def stack(task: Stack, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    held: list[int] = []
    tokens, targets = [], []
    for position in range(task.length):
        if held and (position == task.length - 1 or rng.random() < 0.5):
            tokens.append(task.vocab_size - 1)
            targets.append(held.pop())
        else:
            held.append(int(rng.integers(task.vocab_size - 1)))
            tokens.append(held[-1])
            targets.append(IGNORE)
    return tokens, targets


GENERATORS = {"stack": stack}
SETTINGS = [setting("stack", length=2, vocab_size=3)]
TINY = [setting("stack", length=5, vocab_size=3)]
