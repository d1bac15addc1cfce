"""Permutation words: the product of all permutations so far."""

from itertools import permutations
from math import factorial

import numpy as np

from archlab.errors import ArchlabError
from archlab.tasks._groups import Ids, draw_words
from archlab.tasks.contract import Arrays, Task
from archlab.tasks.registry import register

_SIZES = {factorial(degree): degree for degree in (3, 4, 5)}


@register("permutation-words")
class PermutationWords(Task):
    """Track the product of a sequence of permutations: the word problem of the groups S3, S4 and S5 (arXiv 2404.08819).

    Tokens are the permutations of three, four or five things, so the vocabulary has 6, 24 or 120 ids; p0 changes nothing. Every
    position asks for the permutation that all tokens up to there make, one after the other::

        input    p1 p2 p0 p1
        target   p1 p3 p3 p5

    The word problem of S5 is complete for NC1, beyond what a fixed number of attention layers or diagonal recurrences computes.
    """

    short = "perm"
    order = 22
    suite = "state"
    summary = "tell which permutation all those so far make together"

    vocab_size: int = 6
    length: int = 32
    num_train_examples: int = 25_600

    def check(self) -> None:
        if self.vocab_size not in _SIZES:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: tokens are all permutations of a few things: give 6 (S3), 24 (S4) "
                f"or 120 (S5)"
            )

    @property
    def chance(self) -> float:
        return 1 / self.vocab_size

    def describe_tokens(self) -> dict[str, range]:
        return {"permutation": range(self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_words(_table(_SIZES[self.vocab_size]), rng, n, self.length)


def _table(degree: int) -> Ids:
    """The table of the symmetric group: the permutation a, then b, by their ranks in lexicographic order."""
    elements = np.array(list(permutations(range(degree))), dtype=np.int32)
    digits = degree ** np.arange(degree)
    rank = {int(code): index for index, code in enumerate(elements @ digits)}
    # b after a takes place i to b[a[i]].
    codes = elements[:, elements].transpose(1, 0, 2) @ digits
    table: Ids = np.vectorize(rank.__getitem__, otypes=[np.int32])(codes)
    return table
