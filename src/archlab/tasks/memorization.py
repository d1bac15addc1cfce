"""Memorization: a fixed map from keys to values that no sequence contains."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.fields import Natural
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("memorization")
class Memorization(Task):
    """Learn a fixed map from keys to values by heart (arXiv 2403.17844, section 3.1).

    The first half of all ids but the last are keys, the second half values; ``map_seed`` fixes which
    value each key has, the same in every split and for every data seed, and no two keys share one. A key
    is followed by the insert token (the last id), where its value is asked; no value is ever an input::

        input    k3 insert k0 insert k7 insert
        target    .     v1  .     v9  .     v4
    """

    order = 6
    any_length = False
    suite = "mad"
    summary = "know the values of keys by heart; they are nowhere in the sequence"
    signs: ClassVar[dict[str, str]] = {"insert": "?"}

    vocab_size: int = 256
    length: int = 32
    num_train_examples: int = 256
    map_seed: Natural = 12_345

    def check(self) -> None:
        if self.length % 2:
            raise ArchlabError(f"{self.name}: length={self.length}: each key is followed by an insert token: give an even length")
        if self.vocab_size < 5:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two keys, two values and the insert token: "
                f"give at least 5"
            )

    @property
    def num_keys(self) -> int:
        """Number of ids that are keys."""
        return (self.vocab_size - 1) // 2

    @property
    def chance(self) -> float:
        return 1 / self.num_keys

    def describe_tokens(self) -> dict[str, range]:
        insert = self.vocab_size - 1
        return {"key": range(self.num_keys), "value": range(self.num_keys, insert), "insert": range(insert, insert + 1)}

    def value_of_key(self) -> NDArray[np.int64]:
        """Value of each key in the map, ``(num_keys,)`` int64."""
        values = np.arange(self.num_keys, self.vocab_size - 1)
        return np.random.default_rng(self.map_seed).permutation(values)[: self.num_keys]

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        keys = rng.integers(self.num_keys, size=(n, self.length // 2))
        inputs = np.full((n, self.length), self.vocab_size - 1, dtype=np.int64)
        inputs[:, ::2] = keys
        targets = np.full_like(inputs, IGNORE)
        targets[:, 1::2] = self.value_of_key()[keys]
        return inputs, targets
