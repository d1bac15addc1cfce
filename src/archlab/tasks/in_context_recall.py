"""In-context recall: the value that followed a key earlier in the sequence."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Natural
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("in-context-recall")
class InContextRecall(Task):
    """Recall the value bound to a key earlier in the sequence (arXiv 2403.17844, section 3.1).

    The first half of the vocabulary are keys, the second half values. A key's value is drawn at its
    first appearance and fixed within the sequence. Answers are the values of keys seen before; the
    last pair asks for one of the keys shown, each equally likely::

        input    k3 v1 k0 v5 k3 v1 k7 v2 k0
        target    .  .  .  . v1  .  .  . v5

    Training targets are all next tokens instead, so the training loss has a floor. With
    ``multi_query=False`` only the last pair is asked, behind a copy token (the last id, taken from the
    vocabulary), and the input is one position longer::

        input    k3 v1 k0 v5 k3 v1 k7 v2 copy k0
        target    .  .  .  .  .  .  .  .    . v5
    """

    short = "recall"
    suite = "mad"
    order = 1
    summary = "recall the value that followed a key earlier in the sequence"
    signs: ClassVar[dict[str, str]] = {"copy": ">"}
    later_knobs = frozenset({"keys_per_sequence"})
    level_knob = "keys_per_sequence"

    vocab_size: int = 16
    length: int = 128
    num_train_examples: int = 12_800
    multi_query: bool = True
    keys_per_sequence: Natural = 0
    """Keys that the pairs of a sequence are drawn from, themselves drawn anew for each sequence; 0: all."""

    def check(self) -> None:
        if self.keys_per_sequence > self.num_keys:
            raise ArchlabError(
                f"{self.name}: keys_per_sequence={self.keys_per_sequence}: there are {max(self.num_keys, 0)} keys: give no "
                f"more, or a larger vocab_size"
            )
        if self.length % 2 or self.length < 4:
            raise ArchlabError(
                f"{self.name}: length={self.length}: keys and values come in pairs, and one pair must be shown before it is "
                f"asked: give an even length of at least 4"
            )
        if self.num_keys < 2:
            needed = 4 + self._num_noise_tokens + (not self.multi_query)
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for two keys and two values: give at least {needed}"
            )

    @property
    def num_keys(self) -> int:
        """Number of ids that are keys."""
        return self._num_pair_tokens // 2

    @property
    def num_values(self) -> int:
        """Number of ids that are values."""
        return self._num_pair_tokens - self.num_keys

    @property
    def _num_pair_tokens(self) -> int:
        return self.vocab_size - self._num_noise_tokens - (not self.multi_query)

    @property
    def _num_noise_tokens(self) -> int:
        return 0

    @property
    @override
    def input_length(self) -> int:
        # The last value is only asked; the single-query variant has a copy token more.
        return self.length - 1 if self.multi_query else self.length

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    def describe_tokens(self) -> dict[str, range]:
        roles = {"key": range(self.num_keys), "value": range(self.num_keys, self._num_pair_tokens)}
        return roles if self.multi_query else roles | {"copy": range(self.vocab_size - 1, self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m, training=training), n, self.input_length)

    def _draw(self, rng: np.random.Generator, n: int, *, training: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        slots = self.length // 2 - 1
        # The column behind the keys stands for noise, so that a slot of noise shows no key.
        keys = rng.integers(self.keys_per_sequence or self.num_keys, size=(n, slots), dtype=np.int32)
        if self.keys_per_sequence:
            in_use = rng.permuted(np.tile(np.arange(self.num_keys, dtype=np.int32), (n, 1)), axis=1)
            keys = np.take_along_axis(in_use, keys, axis=1)
        is_noise = self._draw_noise_slots(rng, n, slots)
        keys[is_noise] = self.num_keys
        values_of_keys = rng.integers(self.num_keys, self._num_pair_tokens, size=(n, self.num_keys + 1), dtype=np.int32)

        first_slots = _first_slots(keys, self.num_keys + 1)
        shown = (first_slots[:, :-1] < slots).cumsum(axis=1)
        probes = (shown <= rng.integers(shown[:, -1:])).sum(axis=1, keepdims=True)

        tokens = np.empty((n, self.input_length + 1), dtype=np.int32)
        tokens[:, 0 : 2 * slots : 2] = keys
        tokens[:, 1 : 2 * slots : 2] = np.take_along_axis(values_of_keys, keys, axis=1)
        tokens[:, : 2 * slots].reshape(n, slots, 2)[is_noise] = self._draw_noise(rng, int(is_noise.sum()))
        tokens[:, 2 * slots : -2] = self.vocab_size - 1
        tokens[:, -2:-1] = probes
        tokens[:, -1:] = np.take_along_axis(values_of_keys, probes, axis=1)
        if training:
            return tokens[:, :-1], tokens[:, 1:]

        is_answer = np.zeros((n, self.input_length), dtype=np.bool_)
        is_answer[:, -1] = True
        if self.multi_query:
            seen_before = np.take_along_axis(first_slots, keys, axis=1) < np.arange(slots)
            is_answer[:, 0 : 2 * slots : 2] = seen_before & ~is_noise
        return tokens[:, :-1], np.where(is_answer, tokens[:, 1:], IGNORE)

    def _draw_noise_slots(self, rng: np.random.Generator, n: int, slots: int) -> NDArray[np.bool_]:
        """Mask of the pair slots that hold noise, ``(n, slots)``."""
        return np.zeros((n, slots), dtype=np.bool_)

    def _draw_noise(self, rng: np.random.Generator, slots: int) -> NDArray[np.int32]:
        """Tokens of a number of noise slots, ``(slots, 2)``."""
        return np.empty((slots, 2), dtype=np.int32)


def _first_slots(keys: NDArray[np.int32], num_keys: int) -> NDArray[np.int32]:
    """First slot of each key in each row, ``(n, num_keys)``; the number of slots where it never appears."""
    n, slots = keys.shape
    first_slots = np.full(n * num_keys, slots, dtype=np.int32)
    key_of_row = (keys + num_keys * np.arange(n)[:, None]).ravel()
    np.minimum.at(first_slots, key_of_row, np.tile(np.arange(slots, dtype=np.int32), n))
    return first_slots.reshape(n, num_keys)
