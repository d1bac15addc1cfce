"""A task of your own in one file: ``archlab tasks show running-sum --tasks-file custom_task.py``."""

from dataclasses import dataclass

import numpy as np

from archlab import ArchlabError
from archlab.tasks import Arrays, Task, register


@register("running-sum")
@dataclass(frozen=True, kw_only=True)
class RunningSum(Task):
    """Add up all digits so far, modulo the number of digits.

    ::

        input    d3 d1 d6 d7
        target   d3 d4 d2 d1
    """

    short = "sum"
    summary = "add up all digits so far, modulo their number"

    vocab_size: int = 8
    length: int = 64
    num_train_examples: int = 12_800

    def check(self) -> None:
        if self.vocab_size < 2:
            raise ArchlabError(f"{self.name}: vocab_size={self.vocab_size}: nothing to add up: give at least 2")

    @property
    def chance(self) -> float:
        return 1 / self.vocab_size

    def describe_tokens(self) -> dict[str, range]:
        return {"digit": range(self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        digits = rng.integers(self.vocab_size, size=(n, self.length))
        return digits, digits.cumsum(axis=1) % self.vocab_size
