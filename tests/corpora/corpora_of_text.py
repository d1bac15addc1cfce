"""A small corpus for tests."""

from pathlib import Path

from archlab.corpora import Corpus, prepare


def small_corpus(folder: Path, documents: int = 400) -> Corpus:
    """About 280,000 tokens."""
    texts = folder / "texts"
    texts.mkdir()
    for n in range(documents):
        (texts / f"{n}.txt").write_text(f"document {n}: {n * n}\n" * (n % 70))
    return prepare(str(texts), "ascii", folder=folder / "cache")
