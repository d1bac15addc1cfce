"""Which documents are held out for validation."""

from collections.abc import Mapping

from archlab.errors import ArchlabError

_HASHES = 1 << 128


def held_out(size_of: Mapping[bytes, int], fraction: float, where: str) -> set[bytes]:
    """The hashes of the documents that are for validation.

    A document is held out if its hash, as a number in [0, 1), is below the fraction. Its size does not matter, so documents
    of both splits are alike, and it stays where it is when others are added. Where chance holds out no document or more than
    twice as many as asked for, it is ``fraction`` of their number, the least hashes, one at least. Held-out documents are given
    back, the greatest hash first, until training has about half of the bytes: ``(1 - fraction) / 2``.

    Args:
        size_of: bytes of each document, by its hash of 16 bytes; equal documents are one, with the sum of their bytes.
        fraction: of the documents, in (0, 1).
        where: the corpus, for messages.

    Raises:
        ArchlabError: there is no document, one only, or one that has more than half of the bytes.
    """
    if not size_of:
        raise ArchlabError(f"corpus {where} is empty: it has no text")
    if len(size_of) == 1:
        raise ArchlabError(
            f"corpus {where} has one document only: validation needs another one; a single text file is cut into documents at "
            "line ends, once it is longer than 16 KiB"
        )
    total, largest = sum(size_of.values()), max(size_of.values())
    if largest > total / 2:
        raise ArchlabError(
            f"corpus {where}: one of its {len(size_of):,} documents, equal ones counted as one, has {largest / total:.0%} of all "
            "bytes, so training and validation would differ in kind: cut it into several, or give it alone as a text file, "
            "which is cut"
        )
    order = sorted(size_of)
    number = sum(int.from_bytes(digest, "big") < fraction * _HASHES for digest in order)
    if not 0 < number <= 1 + 2 * fraction * len(order) or number == len(order):
        number = min(max(1, round(fraction * len(order))), len(order) - 1)
    chosen = order[:number]
    held = sum(size_of[digest] for digest in chosen)
    while held > (1 + fraction) / 2 * total:
        held -= size_of[chosen.pop()]
    return set(chosen)
