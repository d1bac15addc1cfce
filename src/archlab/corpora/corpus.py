"""A prepared corpus: token streams on disk, and the sequences that a step of training reads from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from archlab.corpora.order import Integers, shuffled
from archlab.errors import ArchlabError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class Corpus:
    """Token streams of two splits that share no document, and what is known about them.

    A sequence of ``length`` is ``length + 1`` neighbouring tokens: inputs, and targets one further. Sequences of a split
    follow each other, the last token of one being the first of the next; a document's end is a token of its own.
    """

    folder: Path
    source: str
    """Where its documents came from, as :func:`prepare` was asked."""
    tokenizer: str
    """The tokenizer that cut them into tokens."""
    vocab_size: int
    """Tokens are below this."""
    dtype: str
    """Type of the tokens on disk."""
    hash: str
    """SHA-256 of vocabulary size and the tokens of both splits: equal exactly where the data is."""
    splits: Mapping[Split, Mapping[str, int]]
    """Number of ``documents``, ``bytes`` and ``tokens`` of each split."""

    def num_tokens(self, split: Split) -> int:
        """Tokens of a split, the ends of its documents included."""
        return self.splits[split]["tokens"]

    def num_bytes(self, split: Split) -> int:
        """Bytes of its documents: turns nats a token into bits a byte, which compares across tokenizers."""
        return self.splits[split]["bytes"]

    def tokens(self, split: Split) -> NDArray[np.unsignedinteger[Any]]:
        """The stream of a split, memory-mapped: a read-only vector of unsigned integers."""
        return self._streams[split]

    def num_sequences(self, split: Split, length: int) -> int:
        """Sequences of ``length`` in a split; an ArchlabError says that there is none."""
        if length < 1:
            raise ArchlabError(f"length {length}: must be at least 1")
        number = (self.num_tokens(split) - 1) // length
        if number < 1:
            few = f"corpus {self.source}: {self.num_tokens(split):,} {split} tokens are less than one sequence of {length}"
            raise ArchlabError(f"{few} and its target: give a longer corpus or a shorter length")
        return number

    def batch(self, step: int, batch_size: int, length: int, seed: int, rows: Integers | None = None) -> Integers:
        """The sequences that training reads at a step: ``(batch_size, length + 1)`` int64, or only these ascending ``rows``.

        They follow from the step alone: a training that resumes, or that other processes share by rows, reads the same.
        Within an epoch no sequence comes twice; each epoch has an order of its own.
        """
        number = self.num_sequences("train", length)
        epochs, places = np.divmod(step * batch_size + (np.arange(batch_size) if rows is None else rows), number)
        which = np.concatenate([shuffled(places[epochs == e], number, seed, int(e)) for e in range(epochs[0], epochs[-1] + 1)])
        return self._sequences("train", which, length)

    def epochs(self, tokens: float, length: int) -> float:
        """How often training on so many tokens reads the training split."""
        return tokens / (self.num_sequences("train", length) * length)

    def validation_batches(self, batch_size: int, length: int, limit: int | None = None) -> Iterator[Integers]:
        """The held-out sequences, ``(up to batch_size, length + 1)`` int64 at a time; the same ones each time.

        ``limit`` takes at most so many sequences, evenly spread over the split.
        """
        number = self.num_sequences("validation", length)
        which = np.arange(number)
        if limit is not None and limit < number:
            which = which[:limit] * number // limit
        for first in range(0, len(which), batch_size):
            yield self._sequences("validation", which[first : first + batch_size], length)

    def _sequences(self, split: Split, which: Integers, length: int) -> Integers:
        rows: Integers = self._streams[split][which[:, None] * length + np.arange(length + 1)].astype(np.int64)
        return rows

    @cached_property
    def _streams(self) -> dict[Split, NDArray[np.unsignedinteger[Any]]]:
        dtype = np.dtype(self.dtype)
        return {split: np.memmap(stream_path(self.folder, split), dtype, mode="r") for split in SPLITS}


def stream_path(folder: Path, split: Split) -> Path:
    """Where the tokens of a split lie in a corpus's folder."""
    return folder / f"{split}.bin"
