"""Copying: a whole sequence again, token by token."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("copying")
class Copying(Task):
    """Copy a sequence of random tokens (arXiv 2402.01032).

    Data tokens are drawn from all ids but the last, the copy token, behind which they are asked again; the model sees its
    right answers so far::

        input    d5 d1 d7 copy d5 d1
        target    .  .  .   d5 d1 d7
    """

    short = "copying"
    order = 11
    suite = "recall"
    summary = "repeat a sequence of random tokens"
    signs: ClassVar[dict[str, str]] = {"copy": ">"}

    vocab_size: int = 16
    length: int = 64
    num_train_examples: int = 25_600

    def check(self) -> None:
        if self.length % 2:
            raise ArchlabError(f"{self.name}: length={self.length}: every token stands there twice: give an even length")
        if self.vocab_size < 3:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two data tokens and copy: give at least 3"
            )

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 1)

    def describe_tokens(self) -> dict[str, range]:
        return {"data": range(self.vocab_size - 1), "copy": range(self.vocab_size - 1, self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        half = self.length // 2
        data = rng.integers(self.vocab_size - 1, size=(n, half), dtype=np.int32)
        answers = self._again(data)
        copy = np.full((n, 1), self.vocab_size - 1, dtype=np.int32)
        targets = np.full((n, self.length), IGNORE, dtype=np.int32)
        targets[:, half:] = answers
        return np.concatenate([data, copy, answers[:, :-1]], axis=1), targets

    def _again(self, data: NDArray[np.int32]) -> NDArray[np.int32]:
        """The answers, ``(n, length / 2)``."""
        return data
