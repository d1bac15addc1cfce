"""Needle: one pair among distractors and noise."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.fields import Natural
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("needle")
class Needle(Task):
    """Find the value of one key in a long sequence of noise, among pairs of other keys.

    A quarter of the ids are keys, a quarter values, the last one asks, and the rest is noise. The pair that is asked and
    ``num_distractors`` pairs of other keys stand at random places; everything else is noise. The last two tokens ask for a key::

        input     n k3 v1 n n k0 v5 n n n ask k3
        target    .  .  . . .  .  . . . .   . v1
    """

    short = "needle"
    order = 13
    suite = "recall"
    summary = "find the value of one key among noise and pairs of other keys"
    signs: ClassVar[dict[str, str]] = {"ask": "?"}
    background = frozenset({"noise"})

    vocab_size: int = 64
    length: int = 128
    num_train_examples: int = 25_600
    num_distractors: Natural = 4

    def check(self) -> None:
        if self.vocab_size < 10:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two keys, two values, noise and ask: give at least 10"
            )
        if self.num_distractors >= self.num_keys:
            raise ArchlabError(
                f"{self.name}: num_distractors={self.num_distractors}: every pair has a key of its own, and "
                f"vocab_size={self.vocab_size} has {self.num_keys}: give at most {self.num_keys - 1}"
            )
        if self.length < 2 * self.num_distractors + 4:
            raise ArchlabError(
                f"{self.name}: length={self.length}: too short for {self.num_distractors + 1} pairs and the question: give at "
                f"least {2 * self.num_distractors + 4}"
            )

    @property
    def num_keys(self) -> int:
        """Number of ids that are keys, and that are values."""
        return self.vocab_size // 4

    @property
    def chance(self) -> float:
        return 1 / self.num_keys

    def describe_tokens(self) -> dict[str, range]:
        keys, last = self.num_keys, self.vocab_size - 1
        noise = range(2 * keys, last)
        return {"key": range(keys), "value": range(keys, 2 * keys), "noise": noise, "ask": range(last, last + 1)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        pairs, room = self.num_distractors + 1, self.length - 2
        tokens = rng.integers(2 * self.num_keys, self.vocab_size - 1, size=(n, self.length), dtype=np.int32)
        keys = rng.permuted(np.tile(np.arange(self.num_keys, dtype=np.int32), (n, 1)), axis=1)[:, :pairs]
        values = rng.integers(self.num_keys, 2 * self.num_keys, size=(n, pairs), dtype=np.int32)
        # Pairs are one token wide as long as their order is drawn, and push those behind them one place further.
        starts = np.sort(rng.random((n, room - pairs)).argsort(axis=1)[:, :pairs], axis=1) + np.arange(pairs)
        np.put_along_axis(tokens, starts, keys, axis=1)
        np.put_along_axis(tokens, starts + 1, values, axis=1)
        asked = rng.integers(pairs, size=(n, 1))
        tokens[:, -2] = self.vocab_size - 1
        tokens[:, -1:] = np.take_along_axis(keys, asked, axis=1)
        targets = np.full((n, self.length), IGNORE, dtype=np.int32)
        targets[:, -1:] = np.take_along_axis(values, asked, axis=1)
        return tokens, targets
