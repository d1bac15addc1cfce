"""Prepares a corpus: reads every document twice, once to split them, once to write their tokens; keeps the result."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from archlab.corpora.corpus import SPLITS, Corpus, stream_path
from archlab.corpora.documents import Source
from archlab.corpora.notes import Notes
from archlab.corpora.split import held_out
from archlab.corpora.tokenizers import Tokens, tokenizer_maker
from archlab.errors import ArchlabError
from archlab.files import cache_folder

Documents = Callable[[], Iterator[bytes]]

VALIDATION_FRACTION = 0.05
_FORMAT = 5
"""Version of the files and of tokenizers and splits: with another number a corpus is prepared again."""


def prepare(
    source: str,
    tokenizer: str | None = None,
    folder: Path | None = None,
    *,
    validation_fraction: float = VALIDATION_FRACTION,
    verify: bool = False,
) -> Corpus:
    """The corpus of a source, tokenised on the first call and memory-mapped from then on.

    A killed preparation leaves nothing that is taken for whole; of several processes that ask at once, one prepares. What was
    left out or changed is said on standard error, and kept in the folder's ``manifest.json``.

    Args:
        source: ``stdlib``, a path, or ``hf:NAME``, with options; see :mod:`archlab.corpora.documents`.
        tokenizer: see :mod:`archlab.corpora.tokenizers`; by default ``dna`` for FASTA that is not of
            proteins (``.faa``), and ``bytes`` for all else.
        folder: where corpora are kept; by default ``archlab/corpora`` in the user's cache folder.
        validation_fraction: of the documents, held out by their content alone, whatever their size; equal ones stay together.
        verify: read all tokens of a corpus that is there, and prepare it again if their hash differs.

    Raises:
        ArchlabError: the source is missing, empty, holds no text, or has one document, or one that is more than half of it; a
            package is missing; no such tokenizer, or ``dna`` for what is none.
    """
    if not 0 < validation_fraction < 1:
        raise ArchlabError(f"validation_fraction={validation_fraction}: give a number between 0 and 1")
    parsed = Source.parse(source)
    if tokenizer is None:
        tokenizer = "dna" if parsed.is_dna else "bytes"
    folder = folder or cache_folder() / "corpora"
    file = tokenizer.removeprefix("hf:")
    changed = os.stat(file).st_mtime_ns if os.path.isfile(file) else 0
    identity = json.dumps([_FORMAT, parsed.fingerprint(), tokenizer, changed, validation_fraction])
    place = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if (corpus := _whole(place, verify=verify)) is not None:
        return corpus
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with place.with_name(f"{place.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go for a process that is killed
            if (corpus := _whole(place, verify=verify)) is None:
                _prepare(place, parsed, tokenizer, validation_fraction)
                corpus = _whole(place)
    except OSError as error:
        raise ArchlabError(f"corpora folder {folder} cannot be written: {error}: free space or set XDG_CACHE_HOME") from error
    assert corpus is not None
    return corpus


def _prepare(place: Path, source: Source, tokenizer: str, validation_fraction: float) -> None:
    unfinished = place.with_name(f"{place.name}.unfinished")
    for left_behind in (place, unfinished):
        shutil.rmtree(left_behind, ignore_errors=True)
    unfinished.mkdir()
    try:
        _write(unfinished, source, tokenizer, validation_fraction)
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _whole(place: Path, *, verify: bool = False) -> Corpus | None:
    """The corpus at a place, if it is there with all its bytes; with ``verify`` their hash is compared too."""
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        del manifest["notes"]  # said when it was prepared
        corpus = Corpus(place, **manifest)
        size = np.dtype(corpus.dtype).itemsize
        whole = all(stream_path(place, split).stat().st_size == size * corpus.num_tokens(split) for split in SPLITS)
        whole = whole and not (verify and _hash_of(corpus) != corpus.hash)
    except Exception:  # whatever a damaged manifest holds
        return None
    return corpus if whole else None


def _hash_of(corpus: Corpus) -> str:
    digests = []
    for split in SPLITS:
        with stream_path(corpus.folder, split).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return _joined_hash(corpus.vocab_size, corpus.dtype, digests)


def _joined_hash(vocab_size: int, dtype: str, digests: Sequence[bytes]) -> str:
    """Hash of vocabulary size, type of tokens, and the digests of the splits."""
    return hashlib.sha256(f"{vocab_size} {dtype}".encode() + b"".join(digests)).hexdigest()


def _write(folder: Path, source: Source, tokenizer_name: str, validation_fraction: float) -> None:
    make_tokenizer = tokenizer_maker(tokenizer_name)  # a wrong name is told before anything is read
    with ExitStack() as stack:
        notes = Notes()
        documents: Documents = source.documents
        first = source.documents(notes)
        if source.is_remote:
            documents = stack.enter_context(_spooled(first, folder))
            first = documents()
        is_held = _split(first, source.text, validation_fraction)
        training = (document for document, held in zip(documents(), is_held, strict=False) if not held)
        tokenizer = make_tokenizer(training)
        tokenizer.save(folder)
        dtype = next(np.dtype(x) for x in (np.uint8, np.uint16, np.uint32) if tokenizer.vocab_size <= np.iinfo(x).max + 1)
        streams = {split: stack.enter_context(_Stream(stream_path(folder, split), dtype)) for split in SPLITS}
        sizes: list[int] = []

        def measured() -> Iterator[bytes]:
            for document in documents():
                sizes.append(len(document))
                if len(sizes) <= len(is_held):
                    yield document

        for number, tokens in enumerate(tokenizer.encode(measured())):
            streams["validation" if is_held[number] else "train"].add(tokens, sizes[number])
        if len(sizes) != len(is_held):
            raise ArchlabError(f"corpus {source.text}: changed while it was read: try again")
    manifest = {
        "source": source.text,
        "tokenizer": tokenizer_name,
        "vocab_size": tokenizer.vocab_size,
        "dtype": dtype.name,
        "hash": _joined_hash(tokenizer.vocab_size, dtype.name, [streams[split].digest.digest() for split in SPLITS]),
        "splits": {split: streams[split].counts for split in SPLITS},
        "notes": notes.lines(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for line in notes.lines() if source.place != "stdlib" else ():  # which no user can mend
        print(f"corpus {source.text}: {line}", file=sys.stderr)


def _split(documents: Iterator[bytes], where: str, fraction: float) -> NDArray[np.bool_]:
    """Which documents are for validation."""
    size_of: dict[bytes, int] = {}
    digests: list[bytes] = []
    for document in documents:
        digest = hashlib.blake2b(document, digest_size=16).digest()
        size_of[digest] = size_of.get(digest, 0) + len(document)
        digests.append(digest)
    chosen = held_out(size_of, fraction, where)
    return np.array([digest in chosen for digest in digests])


@contextmanager
def _spooled(documents: Iterator[bytes], folder: Path) -> Iterator[Documents]:
    """The documents of a remote source, kept on disk to be read again."""
    with tempfile.TemporaryFile(dir=folder) as file:
        sizes = []
        for document in documents:
            file.write(document)
            sizes.append(len(document))

        def again() -> Iterator[bytes]:
            file.seek(0)
            for size in sizes:
                yield file.read(size)

        yield again


class _Stream:
    """The tokens of a split on their way to disk."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.file, self.dtype = path.open("wb"), dtype
        self.counts = {"documents": 0, "bytes": 0, "tokens": 0}
        self.digest = hashlib.sha256()

    def add(self, tokens: Tokens, num_bytes: int) -> None:
        data = tokens.astype(self.dtype).tobytes()
        self.file.write(data)
        self.digest.update(data)
        for name, more in (("documents", 1), ("bytes", num_bytes), ("tokens", len(tokens))):
            self.counts[name] += more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
