"""Fuzzy in-context recall: in-context recall with keys and values of several tokens."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.base import IGNORE, Arrays, Task, register


class _Motifs(NamedTuple):
    """Ordered draws without replacement: tokens, the longest motif's number on a leading axis, and how many of them count."""

    tokens: NDArray[np.int32]
    size: NDArray[np.int32]


@register("fuzzy-in-context-recall")
@dataclass(frozen=True, kw_only=True)
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
    pair, and then the probe's key is never shown, in some 3 % of sequences. Here the last pair of the
    context is the probe in that case, so every answer follows from its context.
    """

    summary = "recall values of several tokens by keys of several tokens"

    vocab_size: int = 16
    length: int = 128
    num_train_examples: int = 12_800
    key_motif_size: int = 3
    value_motif_size: int = 3
    multi_query: bool = True

    def check(self) -> None:
        """Raise :class:`ArchlabError` unless the longest motifs can be drawn and fit in twice."""
        for knob in ("key_motif_size", "value_motif_size"):
            if getattr(self, knob) < 1:
                raise ArchlabError(f"{self.name}: {knob}={getattr(self, knob)}: must be at least 1")
        for knob, role, available in (
            ("key_motif_size", "keys", self.num_keys),
            ("value_motif_size", "values", self.num_values),
        ):
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
        """Ids that keys are made of."""
        return self._padding // 2

    @property
    def num_values(self) -> int:
        """Ids that values are made of."""
        return self._padding - self.num_keys

    @property
    def _padding(self) -> int:
        return self.vocab_size - 1 - (not self.multi_query)

    @property
    def _longest(self) -> int:
        return self.key_motif_size + self.value_motif_size

    @property
    def chance(self) -> float:
        """One of the tokens that values are made of."""
        return 1 / self.num_values

    def describe_tokens(self) -> dict[str, range]:
        """Tokens of keys and values, padding, and the copy token of the single-query variant."""
        padding, end = self._padding, self.vocab_size
        roles = {"key": range(self.num_keys), "value": range(self.num_keys, padding), "pad": range(padding, padding + 1)}
        return roles if self.multi_query else roles | {"copy": range(end - 1, end)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        """Draw ``n`` sequences: inputs and targets, each ``(n, length)`` int64, ignored = -100."""
        return draw_in_chunks(lambda m: self._draw(rng, m, training=training), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int, *, training: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        # Slot 0 is the probe, the last slot its repetition at the end; between are more pairs than the context takes.
        shortest_key = 1 if training else self.key_motif_size
        pairs = -(-(self.length - self._longest - shortest_key - 1) // (shortest_key + 1))
        keys = _draw_motifs(rng, (n, pairs + 2), self.num_keys, shortest_key, self.key_motif_size)
        values = _draw_motifs(rng, (n, pairs + 2), self.num_values, 1, self.value_motif_size)
        for array in (keys.size, *keys.tokens):
            array[:, -1] = array[:, 0]

        owner = _first_slots(keys, self.num_keys)
        value_size = np.take_along_axis(values.size, owner, axis=1)
        starts, is_answer = self._lay_out(rng, keys.size + value_size, owner)
        if not self.multi_query:
            is_answer[:, :-1] = False

        # Slots without a place lie behind the sequence, and are cut off with the columns there.
        width = self.length + 1 + self._longest
        tokens = np.full((n, width), self._padding, dtype=np.int32)
        answers = np.zeros((n, width), dtype=np.bool_)
        if not self.multi_query:
            np.put_along_axis(tokens, starts[:, -1:] - 1, self.vocab_size - 1, axis=1)
        nowhere = self.length + 1
        for t, token in enumerate(keys.tokens):
            at = np.where(t < keys.size, starts + t, nowhere)
            np.put_along_axis(tokens, at, token, axis=1)
        for t, token in enumerate(values.tokens):
            at = np.where(t < value_size, starts + keys.size + t, nowhere)
            np.put_along_axis(tokens, at, np.take_along_axis(token, owner, axis=1) + self.num_keys, axis=1)
            np.put_along_axis(answers, at, is_answer, axis=1)
        inputs, following = tokens[:, : self.length], tokens[:, 1 : self.length + 1]
        return inputs, following if training else np.where(answers[:, 1 : self.length + 1], following, IGNORE)

    def _lay_out(
        self, rng: np.random.Generator, sizes: NDArray[np.int32], owner: NDArray[np.intp]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Where every slot starts in the sequence (behind its end if it has no place), and whether its value is an answer."""
        probe_size, pair_sizes, pair_owner = sizes[:, :1], sizes[:, 1:-1], owner[:, 1:-1]
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
        context_end = np.where(in_context, ends, 0).max(axis=1, keepdims=True)
        context_end = np.maximum(context_end, np.where(is_placed, probe_start + probe_size, 0))
        end, nowhere = self.length + 1, self.length + 1
        padding = end - (not self.multi_query) - probe_size - context_end
        places = [
            np.where(is_placed, probe_start + padding, nowhere),
            np.where(in_context, starts + padding, nowhere),
            end - probe_size,
        ]
        answer = [
            np.zeros_like(is_placed),
            np.where(is_probe, is_placed | (pair > drawn_at), pair_owner <= pair),
            np.ones_like(is_placed),
        ]
        return np.concatenate(places, axis=1), np.concatenate(answer, axis=1)


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
    return _Motifs(np.stack(drawn), size)


def _first_slots(keys: _Motifs, num_tokens: int) -> NDArray[np.intp]:
    """The slot where the key of each slot first appears in its row, ``(n, slots)``."""
    n, slots = keys.size.shape
    base = num_tokens + 1
    codes, bound = np.zeros((n, slots), dtype=np.int64), 1
    for t, token in enumerate(keys.tokens):
        if bound * base * slots >= 2**62:
            codes, bound = np.unique(codes, return_inverse=True)[1].reshape(n, slots), n * slots
        codes = codes * base + np.where(t < keys.size, token + 1, 0)
        bound *= base
    # Sorted by key, then slot: each run of one key begins with the slot it first appears in.
    packed = np.sort((codes * slots + np.arange(slots)).astype(np.int32 if bound * slots < 2**31 else np.int64), axis=1)
    code, slot = np.divmod(packed, slots)
    begins = np.ones((n, slots), dtype=np.bool_)
    begins[:, 1:] = code[:, 1:] != code[:, :-1]
    run = np.maximum.accumulate(np.where(begins, np.arange(slots), 0), axis=1)
    first = np.empty((n, slots), dtype=np.intp)
    np.put_along_axis(first, slot, np.take_along_axis(slot, run, axis=1), axis=1)
    return first
