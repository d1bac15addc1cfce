"""Mano: a random expression is written down, then computed by a stack."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.mano import Mano


def mano(task: Mano, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    modulus = task.vocab_size - 5
    expression: list[int] = []
    pending = [int(rng.integers(1, task.max_operators + 1))]
    while pending:
        operators = pending.pop()
        if operators == 0:
            expression.append(int(rng.integers(modulus)))
        else:
            left = int(rng.integers(operators))
            expression.append(modulus + int(rng.integers(3)))
            pending += [operators - 1 - left, left]
    stack: list[int] = []
    for token in reversed(expression):
        if token < modulus:
            stack.append(token)
        else:
            one, other = stack.pop(), stack.pop()
            stack.append([one + other, one - other, one * other][token - modulus] % modulus)
    padding = [task.vocab_size - 1] * (task.length - 1 - len(expression))
    return [*padding, *expression, task.vocab_size - 2], [IGNORE] * (task.length - 1) + stack


GENERATORS = {"mano": mano}
SETTINGS = [setting("mano", vocab_size=28, max_operators=6)]
TINY = [setting("mano", vocab_size=7, max_operators=1, length=5)]
