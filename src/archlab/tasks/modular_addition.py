"""Modular addition: the sum of all tokens so far."""

import numpy as np

from archlab.errors import ArchlabError
from archlab.tasks._groups import draw_words
from archlab.tasks.contract import Arrays, Task
from archlab.tasks.registry import register


@register("modular-addition")
class ModularAddition(Task):
    """Add up the tokens modulo the size of the vocabulary (arXiv 2207.02098; arXiv 2404.08819).

    Every token is a number, and every position asks for the sum of the numbers up to there::

        input    n3 n1 n4 n4 n0
        target   n3 n4 n3 n2 n2

    A state that is only scaled by factors from 0 to 1 cannot count beyond the lengths that it was trained at (arXiv 2411.12537).
    """

    short = "mod-add"
    order = 21
    suite = "state"
    summary = "add up all numbers so far, modulo their count"

    vocab_size: int = 5
    length: int = 40
    num_train_examples: int = 25_600

    def check(self) -> None:
        if self.vocab_size < 2:
            raise ArchlabError(f"{self.name}: vocab_size={self.vocab_size}: numbers need a modulus of at least 2")

    @property
    def chance(self) -> float:
        return 1 / self.vocab_size

    def describe_tokens(self) -> dict[str, range]:
        return {"number": range(self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        numbers = np.arange(self.vocab_size, dtype=np.int32)
        return draw_words((numbers[:, None] + numbers) % self.vocab_size, rng, n, self.length)
