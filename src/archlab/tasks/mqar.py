"""MQAR: multi-query associative recall, all pairs first, then queries far apart."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.fields import Count, above
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("mqar")
class MQAR(Task):
    """Recall the values of many keys from one list: multi-query associative recall (Zoology, arXiv 2312.04927).

    The first half of the vocabulary are keys, the second half values. ``num_pairs`` different keys with their values stand
    first. Then every key is asked once, at a distance that follows a power law with exponent ``power`` - 1, so that most
    queries come soon; random tokens stand between them::

        input    k3 v1 k0 v5 k0 v2 v7 k1 k3 v2
        target    .  .  .  . v5  .  .  . v1  .
    """

    short = "mqar"
    order = 10
    suite = "recall"
    summary = "recall the values of many keys from a list at the start"

    vocab_size: int = 256
    length: int = 64
    num_train_examples: int = 25_600
    num_pairs: Count = 8
    power: Annotated[float, above(0)] = 0.1

    def check(self) -> None:
        if self.num_pairs > self.num_keys:
            raise ArchlabError(
                f"{self.name}: num_pairs={self.num_pairs}: every pair has a key of its own, and vocab_size={self.vocab_size} has "
                f"{self.num_keys}: give a vocabulary of at least {2 * self.num_pairs}"
            )
        if self.vocab_size < 4:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two keys and two values: give at least 4"
            )
        if self.length < 4 * self.num_pairs:
            raise ArchlabError(
                f"{self.name}: length={self.length}: {self.num_pairs} pairs and as many queries, each with a place behind it, "
                f"need at least {4 * self.num_pairs}"
            )

    @property
    def num_keys(self) -> int:
        """Number of ids that are keys."""
        return self.vocab_size // 2

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - self.num_keys)

    def describe_tokens(self) -> dict[str, range]:
        return {"key": range(self.num_keys), "value": range(self.num_keys, self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        pairs = self.num_pairs
        keys = (
            rng.random((n, self.num_keys)).argpartition(pairs - 1, axis=1)[:, :pairs]
            if pairs < self.num_keys
            else (rng.permuted(np.tile(np.arange(self.num_keys), (n, 1)), axis=1))
        )
        keys = rng.permuted(keys, axis=1).astype(np.int32)
        values = rng.integers(self.num_keys, self.vocab_size, size=(n, pairs), dtype=np.int32)
        tokens = rng.integers(self.vocab_size, size=(n, self.length), dtype=np.int32)
        tokens[:, 0 : 2 * pairs : 2] = keys
        tokens[:, 1 : 2 * pairs : 2] = values
        # Distances without replacement, with probabilities that follow the power law: the largest of exponential races.
        distances = np.arange(1, (self.length - 2 * pairs) // 2 + 1)
        races = rng.exponential(size=(n, len(distances))) / distances ** (self.power - 1)
        places = 2 * pairs + 2 * races.argsort(axis=1)[:, :pairs]
        targets = np.full((n, self.length), IGNORE, dtype=np.int32)
        np.put_along_axis(tokens, places, keys, axis=1)
        np.put_along_axis(targets, places, values, axis=1)
        return tokens, targets
