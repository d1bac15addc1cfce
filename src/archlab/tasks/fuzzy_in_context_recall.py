"""Fuzzy in-context recall: in-context recall with keys and values of several tokens."""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.fields import Count, Natural
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


class _Motifs(NamedTuple):
    """Ordered draws without replacement, ``(n, slots)``: first tokens, second tokens ..., and how many of them count."""

    tokens: list[NDArray[np.int32]]
    size: NDArray[np.int32]


@register("fuzzy-in-context-recall")
class FuzzyInContextRecall(Task):
    """Recall values of one or several tokens by keys of one or several tokens (arXiv 2403.17844, section 3.1).

    Keys (values) are motifs: ordered draws without replacement from the first (second) half of the ids
    that are not special, 1 to ``key_motif_size`` (``value_motif_size``) tokens long, every length equally
    likely; when evaluated, keys always have the greatest length. Pairs follow one another; a key's value
    is drawn at its first appearance and fixed within the sequence. A pair drawn beforehand, the probe, is
    placed before the first pair that would start at or after a random position; its key ends the input.
    Padding (the last id) fills the left. Answers are the values of keys seen before::

        input    _ _ k3 k0 k1 v7 k2 k6 k0 v5 v1 k3 k0 k1 v7 k2 k6 k0 v5
        target   . .  .  .  .  .  .  .  .  .  .  .  . v7  .  .  . v5 v1

    Training targets are all next tokens instead. With ``multi_query=False`` only the last pair is asked,
    behind a copy token (the last id; the padding is the last but one).

    In the generator of the paper's released code the random position can lie behind the start of the last
    pair, and then the probe's key is never shown, in about 2 % of sequences at the base setting. Here the
    last pair of the context is the probe in that case, so every answer follows from its context.
    """

    short = "fuzzy"
    suite = "mad"
    order = 3
    summary = "recall values of several tokens by keys of several tokens"
    signs: ClassVar[dict[str, str]] = {"pad": "·", "copy": ">"}
    background = frozenset({"pad"})
    later_knobs = frozenset({"keys_per_sequence"})
    level_knob = "keys_per_sequence"

    vocab_size: int = 16
    length: int = 128
    num_train_examples: int = 12_800
    key_motif_size: Count = 3
    value_motif_size: Count = 3
    multi_query: bool = True
    keys_per_sequence: Natural = 0
    """Keys that the pairs of a sequence are drawn from, themselves drawn anew for each sequence; 0: each pair draws its own."""

    def check(self) -> None:
        for knob, role, available in (("key_motif_size", "keys", self.num_keys), ("value_motif_size", "values", self.num_values)):
            needed = max(2, getattr(self, knob))
            if available < needed:
                raise ArchlabError(
                    f"{self.name}: vocab_size={self.vocab_size} leaves {max(available, 0)} tokens for {role}, too few for "
                    f"{knob}={getattr(self, knob)} different ones: give at least {2 * needed + 1 + (not self.multi_query)}"
                )
        if self.length <= 2 * self._longest:
            raise ArchlabError(
                f"{self.name}: length={self.length}: the longest pair, {self._longest} tokens, must fit in twice: "
                f"give at least {2 * self._longest + 1}"
            )

    @property
    def num_keys(self) -> int:
        """Number of ids that keys are made of."""
        return self._padding // 2

    @property
    def num_values(self) -> int:
        """Number of ids that values are made of."""
        return self._padding - self.num_keys

    @property
    def _padding(self) -> int:
        return self.vocab_size - 1 - (not self.multi_query)

    @property
    def _longest(self) -> int:
        return self.key_motif_size + self.value_motif_size

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    def describe_tokens(self) -> dict[str, range]:
        padding, end = self._padding, self.vocab_size
        roles = {"key": range(self.num_keys), "value": range(self.num_keys, padding), "pad": range(padding, padding + 1)}
        return roles if self.multi_query else roles | {"copy": range(end - 1, end)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m, training=training), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int, *, training: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        # Slot 0 is the probe, slot 1 its repetition at the end; behind them are more pairs than the context takes.
        shortest_key = 1 if training else self.key_motif_size
        pairs = -(-(self.length - self._longest - shortest_key - 1) // (shortest_key + 1))
        keys = _draw_motifs(rng, (n, self.keys_per_sequence or 2 + pairs), self.num_keys, shortest_key, self.key_motif_size)
        if self.keys_per_sequence:
            chosen = rng.integers(self.keys_per_sequence, size=(n, 2 + pairs))
            keys = _Motifs(
                [np.take_along_axis(array, chosen, axis=1) for array in keys.tokens],
                np.take_along_axis(keys.size, chosen, axis=1),
            )
        values = _draw_motifs(rng, (n, 2 + pairs), self.num_values, 1, self.value_motif_size)
        for array in (keys.size, *keys.tokens):
            array[:, 1] = array[:, 0]

        owner = _first_slots(keys, self.num_keys)
        value_size = np.take_along_axis(values.size, owner, axis=1)
        starts, is_answer = self._lay_out(rng, keys.size + value_size, owner)
        used = slice(starts.shape[1])
        key_size, value_size, owner = keys.size[:, used], value_size[:, used], owner[:, used]

        # Slots without a place lie behind the sequence, and are cut off with the columns there.
        width, nowhere = self.length + 1 + self._longest, self.length + 1
        tokens = np.full(n * width, self._padding, dtype=np.int32)
        answers = np.zeros(n * width, dtype=np.bool_)
        row = np.arange(0, n * width, width)[:, None]
        if not self.multi_query:
            is_answer[:, 2:] = False
            tokens[starts[:, 1:2] - 1 + row] = self.vocab_size - 1
        for t, token in enumerate(keys.tokens):
            tokens[np.where(t < key_size, starts + t, nowhere) + row] = token[:, used]
        for t, token in enumerate(values.tokens):
            at = np.where(t < value_size, starts + key_size + t, nowhere) + row
            tokens[at] = np.take_along_axis(token, owner, axis=1) + self.num_keys
            if not training:
                answers[at] = is_answer
        sequences = tokens.reshape(n, width)[:, : self.length + 1]
        if training:
            return sequences[:, :-1], sequences[:, 1:]
        is_asked = answers.reshape(n, width)[:, 1 : self.length + 1]
        return sequences[:, :-1], np.where(is_asked, sequences[:, 1:], IGNORE)

    def _lay_out(
        self, rng: np.random.Generator, sizes: NDArray[np.int32], owner: NDArray[np.intp]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Start of each slot in the sequence, and whether its value is an answer: ``(n, used slots)`` each.

        Slots without a place start behind the sequence; those that have none in any row are left out.
        """
        probe_size, pair_sizes, pair_owner = sizes[:, :1], sizes[:, 2:], owner[:, 2:]
        pair = np.arange(pair_sizes.shape[1], dtype=np.int32)
        limit = self.length - self._longest - probe_size  # no pair of the context starts here or later
        ends = pair_sizes.cumsum(axis=1, dtype=np.int32)
        starts = ends - pair_sizes

        position = rng.integers(self.length - 2 * probe_size)
        before = ((starts >= position) | (ends >= limit)).argmax(axis=1)[:, None]
        probe_start = np.take_along_axis(starts, before, axis=1)
        is_probe = pair_owner == 0
        drawn_at = np.where(is_probe.any(axis=1), is_probe.argmax(axis=1), len(pair))[:, None]
        is_placed = before <= drawn_at  # unless the same key was drawn for a pair further ahead
        shift = np.where(is_placed & (pair >= before), probe_size, 0)
        starts, ends = starts + shift, ends + shift

        in_context = starts < limit
        used = slice(in_context.sum(axis=1).max())
        context_end = np.where(in_context, ends, 0).max(axis=1, keepdims=True)
        context_end = np.maximum(context_end, np.where(is_placed, probe_start + probe_size, 0))
        end, nowhere = self.length + 1, self.length + 1
        padding = end - (not self.multi_query) - probe_size - context_end
        places = (
            np.where(is_placed, probe_start + padding, nowhere),
            end - probe_size,
            np.where(in_context, starts + padding, nowhere)[:, used],
        )
        seen_before = np.where(is_probe, is_placed | (pair > drawn_at), pair_owner < 2 + pair)
        answers = (np.zeros_like(is_placed), np.ones_like(is_placed), seen_before[:, used])
        return np.concatenate(places, axis=1), np.concatenate(answers, axis=1)


def _draw_motifs(rng: np.random.Generator, shape: tuple[int, int], num_tokens: int, shortest: int, longest: int) -> _Motifs:
    """Motifs of ``shortest`` to ``longest`` tokens, every size equally likely, in an array of the given shape."""
    size = rng.integers(shortest, longest + 1, size=shape, dtype=np.int32)
    drawn: list[NDArray[np.int32]] = []
    ascending: list[NDArray[np.int32]] = []
    for t in range(longest):
        # The rank among the tokens not yet drawn, moved past those that are.
        token = rng.integers(num_tokens - t, size=shape, dtype=np.int32)
        for taken in ascending:
            token += token >= taken
        drawn.append(token)
        carried = token
        for i, taken in enumerate(ascending):
            ascending[i], carried = np.minimum(taken, carried), np.maximum(taken, carried)
        ascending.append(carried)
    return _Motifs(drawn, size)


def _first_slots(keys: _Motifs, num_tokens: int) -> NDArray[np.intp]:
    """First slot of its row that has the key of each slot, ``(n, slots)``."""
    n, slots = keys.size.shape
    base, bits = num_tokens + 1, slots.bit_length()
    fits = np.int32 if base ** len(keys.tokens) << bits < 2**31 else np.int64
    codes, bound = np.zeros((n, slots), dtype=fits), 1
    for t, token in enumerate(keys.tokens):
        if bound * base << bits >= 2**62:
            codes, bound = np.unique(codes, return_inverse=True)[1].reshape(n, slots), n * slots
        codes = codes * base + np.where(t < keys.size, token + 1, 0)
        bound *= base
    # Sorted by key, then slot: each run of one key begins with the slot it first appears in.
    slot = np.arange(slots, dtype=fits)
    packed = np.sort((codes << bits) | slot, axis=1)
    begins = np.ones((n, slots), dtype=np.bool_)
    begins[:, 1:] = (packed[:, 1:] ^ packed[:, :-1]) >> bits != 0
    run = np.maximum.accumulate(np.where(begins, slot, 0), axis=1)
    sorted_slot = packed & ((1 << bits) - 1)
    first = np.empty((n, slots), dtype=np.intp)
    np.put_along_axis(first, sorted_slot, np.take_along_axis(sorted_slot, run, axis=1), axis=1)
    return first
