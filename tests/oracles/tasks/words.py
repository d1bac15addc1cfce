"""Word problems, by composing permutations and adding numbers one at a time."""

from itertools import permutations

import numpy as np

from archlab.tasks import Task, setting


def sums(task: Task, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    numbers = [int(rng.integers(task.vocab_size)) for _ in range(task.length)]
    return numbers, [sum(numbers[: i + 1]) % task.vocab_size for i in range(task.length)]


def products(task: Task, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    degree = {6: 3, 24: 4, 120: 5}[task.vocab_size]
    elements = sorted(permutations(range(degree)))
    word = [int(rng.integers(len(elements))) for _ in range(task.length)]
    things, answers = list(range(degree)), []
    for token in word:
        things = [elements[token][thing] for thing in things]
        answers.append(elements.index(tuple(things)))
    return word, answers


GENERATORS = {"parity": sums, "modular-addition": sums, "permutation-words": products}
SETTINGS = [setting("permutation-words", vocab_size=24), setting("modular-addition", vocab_size=7, length=1)]
TINY = [
    setting("parity", length=5),
    setting("modular-addition", vocab_size=3, length=4),
    setting("permutation-words", length=3),
]
