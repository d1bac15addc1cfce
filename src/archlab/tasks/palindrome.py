"""Palindrome: a whole sequence backwards."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.tasks.copying import Copying
from archlab.tasks.registry import register


@register("palindrome")
class Palindrome(Copying):
    """Repeat a sequence of random tokens backwards (as in Kimi Linear, arXiv 2510.26692)::

    input    d5 d1 d7 copy d7 d1
    target    .  .  .   d7 d1 d5
    """

    short = "palindrome"
    order = 12
    summary = "repeat a sequence of random tokens backwards"

    @override
    def _again(self, data: NDArray[np.int32]) -> NDArray[np.int32]:
        return data[:, ::-1]
