"""Parity: whether the number of ones so far is odd."""

from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.tasks.modular_addition import ModularAddition
from archlab.tasks.registry import register


@register("parity")
class Parity(ModularAddition):
    """Tell whether the number of ones so far is odd, at every position (arXiv 2207.02098)::

        input    n1 n0 n1 n1 n0
        target   n1 n1 n0 n1 n1

    A recurrence needs a negative eigenvalue to flip its state for ever (arXiv 2411.12537).
    """

    short = "parity"
    order = 20
    summary = "tell whether the number of ones so far is odd"

    vocab_size: int = 2

    @override
    def check(self) -> None:
        if self.vocab_size != 2:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: parity is of bits: give 2, or take modular-addition "
                f"for larger numbers"
            )
