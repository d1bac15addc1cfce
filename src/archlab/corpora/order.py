"""A random order of any number of things, computed place by place: nothing is stored, and it can begin anywhere."""

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError

Integers = NDArray[np.int64]

_ROUNDS = 6
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def shuffled(places: Integers, size: int, *key: int) -> Integers:
    """The items at these positions of the order of ``0 .. size - 1`` that belongs to the key.

    A Feistel network over the next power of 4, walked until it lands below ``size``: a permutation whatever the round
    function is (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    if len(places) and not 0 <= places.min() <= places.max() < size:
        raise ArchlabError(f"places {places.min()} to {places.max()}: an order of {size} has places 0 to {size - 1}")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64).astype(np.uint64, copy=False)
    found = _encrypt(places.astype(np.uint64), half, keys)
    while (outside := found >= size).any():
        found[outside] = _encrypt(found[outside], half, keys)
    return found.astype(np.int64)


def _encrypt(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_MULTIPLIERS[0])
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_MULTIPLIERS[1])
    return values ^ (values >> np.uint64(31))
