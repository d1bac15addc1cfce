"""Stack: what a pop takes off."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("stack")
class Stack(Task):
    """Keep a stack: a data token is pushed, and every pop asks for the token that it takes off (arXiv 2207.02098).

    Push and pop are equally likely where the stack is not empty; the last token pops, if there is something to take off::

        input    d3 d1 pop d4 pop pop
        target    .  .  d1  .  d4  d3
    """

    short = "stack"
    order = 24
    suite = "state"
    summary = "name the token that is on top of a stack, at every pop"
    signs: ClassVar[dict[str, str]] = {"pop": "^"}

    vocab_size: int = 16
    length: int = 64
    num_train_examples: int = 25_600

    def check(self) -> None:
        if self.length < 2:
            raise ArchlabError(f"{self.name}: length={self.length}: too short for a push and a pop: give at least 2")
        if self.vocab_size < 3:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two data tokens and pop: give at least 3"
            )

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 1)

    def describe_tokens(self) -> dict[str, range]:
        return {"data": range(self.vocab_size - 1), "pop": range(self.vocab_size - 1, self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        pop = self.vocab_size - 1
        tokens = rng.integers(pop, size=(n, self.length), dtype=np.int32)
        wants_pop = rng.random((n, self.length)) < 0.5
        wants_pop[:, -1] = True
        targets = np.full((n, self.length), IGNORE, dtype=np.int32)
        stacks = np.zeros((n, self.length), dtype=np.int32)
        height = np.zeros(n, dtype=np.int64)
        rows = np.arange(n)
        for position in range(self.length):
            pops = wants_pop[:, position] & (height > 0)
            targets[pops, position] = stacks[rows[pops], height[pops] - 1]
            pushed = ~pops
            stacks[rows[pushed], height[pushed]] = tokens[pushed, position]
            tokens[pops, position] = pop
            height += np.where(pops, -1, 1)
        return tokens, targets
