"""Drawing in chunks: the working arrays stay in the processor's cache, whatever the number of sequences."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from archlab.tasks.contract import Arrays

_TOKENS = 1 << 15


def draw_in_chunks(draw: Callable[[int], tuple[NDArray[np.integer], NDArray[np.integer]]], n: int, input_length: int) -> Arrays:
    """Draws ``n`` sequences: inputs and targets, each ``(n, input_length)`` int64.

    ``draw(m)`` returns those of the next ``m`` sequences, in any integer type.
    """
    inputs = np.empty((n, input_length), dtype=np.int64)
    targets = np.empty((n, input_length), dtype=np.int64)
    size = max(1, _TOKENS // input_length)
    for start in range(0, n, size):
        chunk = slice(start, min(start + size, n))
        inputs[chunk], targets[chunk] = draw(chunk.stop - start)
    return inputs, targets
