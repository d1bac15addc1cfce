"""Selective copying: the data tokens in order, without the blanks between them."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.fields import Count
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("selective-copying")
class SelectiveCopying(Task):
    """Copy the data tokens in order, leaving out the blanks (arXiv 2403.17844, section 3.1).

    ``num_tokens_to_copy`` data tokens, each drawn from all ids but the last two; every blank stands
    before a data token drawn uniformly, so none separates the last data token from the copy token (the
    last id). As many blanks (the last id but one) as data tokens follow; there the tokens are asked,
    unshifted::

        input    d5  _  _ d1  _ d7 copy  _  _  _
        target    .  .  .  .  .  .    . d5 d1 d7
    """

    short = "copy"
    suite = "mad"
    order = 4
    summary = "copy the data tokens in order, leaving out the blanks between them"
    signs: ClassVar[dict[str, str]] = {"blank": "_", "copy": ">"}
    background = frozenset({"blank"})
    level_knob = "num_tokens_to_copy"

    vocab_size: int = 16
    length: int = 256
    num_train_examples: int = 12_800
    num_tokens_to_copy: Count = 16

    def check(self) -> None:
        if self.length < 2 * self.num_tokens_to_copy + 2:
            raise ArchlabError(
                f"{self.name}: num_tokens_to_copy={self.num_tokens_to_copy} does not fit in length={self.length}: the tokens "
                f"stand there twice, with a copy token and a blank: give a length of at least {2 * self.num_tokens_to_copy + 2}"
            )
        if self.vocab_size < 4:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two data tokens, blank and copy: give at least 4"
            )

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 2)

    def describe_tokens(self) -> dict[str, range]:
        blank, copy = self.vocab_size - 2, self.vocab_size - 1
        return {"data": range(blank), "blank": range(blank, copy), "copy": range(copy, copy + 1)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        blank, copied = self.vocab_size - 2, self.num_tokens_to_copy
        num_blanks = self.length - 2 * copied - 1
        data = rng.integers(blank, size=(n, copied), dtype=np.int32)

        before = rng.integers(copied, size=(n, num_blanks), dtype=np.int32) + copied * np.arange(n, dtype=np.int32)[:, None]
        blanks_before = np.bincount(before.ravel(), minlength=n * copied).reshape(n, copied)
        positions = blanks_before.cumsum(axis=1) + np.arange(copied)

        inputs = np.full((n, self.length), blank, dtype=np.int32)
        np.put_along_axis(inputs, positions, data, axis=1)
        inputs[:, -copied - 1] = self.vocab_size - 1
        targets = np.full_like(inputs, IGNORE)
        targets[:, -copied:] = data
        return inputs, targets
