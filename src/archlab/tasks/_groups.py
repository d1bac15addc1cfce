"""Word problems of groups: the running product of a sequence of elements."""

import numpy as np
from numpy.typing import NDArray

from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import Arrays

Ids = NDArray[np.int32]


def draw_words(table: Ids, rng: np.random.Generator, n: int, length: int) -> Arrays:
    """Draw ``n`` words, and at every position the product of the elements so far, each ``(n, length)``.

    ``table`` is the group's, ``(order, order)``: ``table[a, b]`` is the element a followed by b. Element 0 is the identity.
    """

    def draw(m: int) -> tuple[Ids, Ids]:
        words = rng.integers(len(table), size=(m, length), dtype=np.int32)
        products = np.empty_like(words)
        product = np.zeros(m, dtype=np.int32)
        for position in range(length):
            product = table[product, words[:, position]]
            products[:, position] = product
        return words, products

    return draw_in_chunks(draw, n, length)
