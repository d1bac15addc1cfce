"""From documents to tokens. Token 0 of the built-in tokenizers ends a document.

========== ============================================================= ==========
name       tokens                                                        vocabulary
========== ============================================================= ==========
bytes      bytes as they are; byte 0 ends a document                     256
ascii      printable ASCII, line feed and tab; the rest is one token     99
dna        A, C, G, T; others, at most a tenth, are a gap, which ends    5
           a document
bpe:SIZE   byte-pair encoding, trained on the training documents         SIZE
hf:NAME    a tokenizer of Hugging Face, or a tokenizer.json              its own
========== ============================================================= ==========
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.corpora.formats import optional_module
from archlab.errors import ArchlabError, unknown

Tokens = NDArray[np.unsignedinteger[Any]]

TOKENIZER_FILE = "tokenizer.json"
"""Holds, in the folder of a corpus or model, a tokenizer whose name does not say all: that of ``bpe`` or ``hf``."""

_END = "<|endoftext|>"
_KNOWN_ENDS = (_END, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_BATCH = 256
_BATCH_BYTES = 16 << 20
_MOST_STRANGE = 0.1
"""Largest fraction of letters that DNA has besides A, C, G and T: gaps and ambiguous bases are fewer, proteins have more."""
_SMALLEST_BPE = 257
"""Every byte and the end."""


class Tokenizer(Protocol):
    """Cuts documents into tokens, and puts them together again."""

    vocab_size: int
    end: int
    """The token that ends a document."""

    def encode(self, documents: Iterable[bytes]) -> Iterator[Tokens]:
        """For every document its tokens, with the one that ends it."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; bytes that are not UTF-8 are replaced."""
        ...

    def save(self, folder: Path) -> None:
        """Write :data:`TOKENIZER_FILE`, unless the name says all."""
        return


class TableTokenizer(Tokenizer):
    """A token a byte, by a table of 256; ``spellings`` are the bytes of every token."""

    end = 0

    def __init__(self, table: Tokens, spellings: Sequence[bytes]) -> None:
        self.table, self.spellings, self.vocab_size = table, spellings, len(spellings)

    @override
    def encode(self, documents: Iterable[bytes]) -> Iterator[Tokens]:
        for document in documents:
            yield self.table[np.frombuffer(document + b"\0", np.uint8)]

    @override
    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.spellings[token] for token in tokens).decode(errors="replace")


class DNATokenizer(TableTokenizer):
    """A, C, G, T in either case; a run of other letters is one 0.

    After the last document it raises an ArchlabError if more than a tenth of all letters are neither of the four nor N.
    """

    def __init__(self) -> None:
        table = np.zeros(256, np.uint8)
        for letters in (b"ACGT", b"acgt"):
            table[list(letters)] = np.arange(1, 5)
        super().__init__(table, [b"N", b"A", b"C", b"G", b"T"])

    @override
    def encode(self, documents: Iterable[bytes]) -> Iterator[Tokens]:
        strange = total = 0
        for document in documents:
            (tokens,) = super().encode([document])
            strange += len(document) - int(np.count_nonzero(tokens)) - sum(map(document.count, (b"N", b"n")))
            total += len(document)
            yield tokens[(tokens != 0) | np.append(True, tokens[:-1] != 0)]
        if strange > _MOST_STRANGE * total:
            raise ArchlabError(
                f"tokenizer dna: {strange / total:.1%} of the letters are not A, C, G, T or N, as in proteins or RNA: take "
                "another, for example --tokenizer bytes"
            )


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the package ``tokenizers``; documents are read as UTF-8, bytes that are not are replaced.

    Padding and truncation of its own are switched off; text that spells a special token stays text.
    """

    def __init__(self, tokenizer: Any, end: int) -> None:
        self.tokenizer, self.end = tokenizer, end
        self.vocab_size: int = max(tokenizer.get_vocab().values()) + 1  # ids may have gaps
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # a document that spells one does not end there

    @override
    def encode(self, documents: Iterable[bytes]) -> Iterator[Tokens]:
        for texts in _batches(documents):
            for encoded in self.tokenizer.encode_batch(texts, add_special_tokens=False):
                yield np.array([*encoded.ids, self.end], np.uint32)

    @override
    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens))
        return text

    @override
    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / TOKENIZER_FILE))


def tokenizer_maker(name: str) -> Callable[[Iterable[bytes]], Tokenizer]:
    """The function that makes the tokenizer of a name from the training documents; only ``bpe`` reads them.

    An ArchlabError says that the name is unknown, a package is missing, or the tokenizer cannot be loaded.
    """
    kind, _, value = name.partition(":")
    if kind == "bpe":
        return _bpe(name, value)
    if name == "bytes":
        tokenizer: Tokenizer = TableTokenizer(np.arange(256, dtype=np.uint8), [b"", *(bytes([byte]) for byte in range(1, 256))])
    elif name == "ascii":
        letters = [*b"\n\t", *range(32, 127)]
        table = np.full(256, len(letters) + 1, np.uint8)
        table[[0, *letters]] = np.arange(len(letters) + 1)
        tokenizer = TableTokenizer(table, [b"", *(bytes([letter]) for letter in letters), "\ufffd".encode()])
    elif name == "dna":
        tokenizer = DNATokenizer()
    elif kind == "hf" and value:
        tokenizer = _from_hugging_face(value)
    else:
        raise unknown("tokenizer", name, ["bytes", "ascii", "dna", "bpe:SIZE", "hf:NAME"])
    return lambda _: tokenizer


def load_tokenizer(name: str, folder: Path) -> Tokenizer:
    """The tokenizer of a corpus or model, from its folder where its name does not say all.

    An ArchlabError says that its file is missing or cannot be read, or that a package is.
    """
    if (folder / TOKENIZER_FILE).is_file():
        return _from_hugging_face(str(folder / TOKENIZER_FILE))
    if name.startswith("bpe:"):
        raise ArchlabError(f"tokenizer {name}: {folder / TOKENIZER_FILE} is missing, and without it tokens have no meaning")
    return tokenizer_maker(name)(())


def _bpe(name: str, size: str) -> Callable[[Iterable[bytes]], HuggingFaceTokenizer]:
    tokenizers = optional_module("tokenizers", f"tokenizer {name}")
    if not size.isdecimal() or int(size) < _SMALLEST_BPE:
        raise ArchlabError(f"tokenizer {name}: give the size of its vocabulary, at least {_SMALLEST_BPE}, as in bpe:4096")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=int(size),
        special_tokens=[_END],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )

    def train(documents: Iterable[bytes]) -> HuggingFaceTokenizer:
        tokenizer.train_from_iterator(_batches(documents), trainer)
        return HuggingFaceTokenizer(tokenizer, tokenizer.token_to_id(_END))

    return train


def _from_hugging_face(name: str) -> HuggingFaceTokenizer:
    loader = optional_module("tokenizers", f"tokenizer hf:{name}").Tokenizer
    try:
        tokenizer = loader.from_file(name) if Path(name).is_file() else loader.from_pretrained(name)
    except Exception as error:  # the package raises plain Exceptions
        fix = "give a name on Hugging Face, or the path of a tokenizer.json"
        raise ArchlabError(f"tokenizer hf:{name}: {error}: {fix}") from error
    end = next((found for x in _KNOWN_ENDS if (found := tokenizer.token_to_id(x)) is not None), None)
    if end is None:
        raise ArchlabError(f"tokenizer hf:{name} has none of the tokens that end a document: {', '.join(_KNOWN_ENDS)}")
    return HuggingFaceTokenizer(tokenizer, end)


def _batches(documents: Iterable[bytes]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document.decode(errors="replace"))
        size += len(document)
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
