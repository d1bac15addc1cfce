"""Compression: a whole sequence of random tokens from the state at its end."""

from typing import ClassVar

import numpy as np

from archlab.errors import ArchlabError
from archlab.fields import Natural
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("compression")
class Compression(Task):
    """Compress random tokens into one position and read all of them back (arXiv 2403.17844, section 3.1).

    Every token is drawn from all ids but the last, which is the compression token and stands at the end.
    The auto-encoder sees only the encoder's output there, and every position is asked, the compression
    token too::

        input    d3 d9 d0 d3 d11 compress
        target   d3 d9 d0 d3 d11 compress

    With ``num_tokens`` there are so many tokens, and only they are asked; compression tokens fill the left.
    """

    order = 5
    any_length = False
    suite = "mad"
    summary = "rebuild a sequence of random tokens from the one state at its end"
    backbone = "auto-encoder"
    signs: ClassVar[dict[str, str]] = {"compress": "#"}
    later_knobs = frozenset({"num_tokens"})
    level_knob = "num_tokens"

    vocab_size: int = 16
    length: int = 32
    num_train_examples: int = 12_800
    num_tokens: Natural = 0
    """Tokens to be compressed; 0: as many as there is room for."""

    def check(self) -> None:
        if self.vocab_size < 3:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two data tokens and the compression token: "
                f"give at least 3"
            )
        if self.length < 2:
            raise ArchlabError(
                f"{self.name}: length={self.length}: no room for a token before the compression token: give at least 2"
            )

        if self.num_tokens >= self.length:
            raise ArchlabError(
                f"{self.name}: num_tokens={self.num_tokens}: the compression token stands behind them, and length={self.length}: "
                f"give at most {self.length - 1}"
            )

    @property
    def chance(self) -> float:
        if self.num_tokens:
            return 1 / (self.vocab_size - 1)
        # A data token everywhere but at the end, where the compression token is certain.
        return ((self.length - 1) / (self.vocab_size - 1) + 1) / self.length

    def describe_tokens(self) -> dict[str, range]:
        return {"data": range(self.vocab_size - 1), "compress": range(self.vocab_size - 1, self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        num_tokens = self.num_tokens or self.length - 1
        inputs = np.full((n, self.length), self.vocab_size - 1, dtype=np.int64)
        inputs[:, -1 - num_tokens : -1] = rng.integers(self.vocab_size - 1, size=(n, num_tokens))
        targets = inputs.copy()
        if self.num_tokens:
            targets[inputs == self.vocab_size - 1] = IGNORE
        return inputs, targets
