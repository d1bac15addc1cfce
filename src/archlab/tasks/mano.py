"""Mano: the value of an arithmetic expression."""

from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.fields import Count
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register

_OPERATORS = ("+", "-", "*")


@register("mano")
class Mano(Task):
    """Compute the value of an expression modulo a number: as Mano of Physics of Language Models, part 4.1.

    An expression in prefix form has 1 to ``max_operators`` operators, each number of them equally likely; the operators of an
    expression are split between its two operands in every way equally likely. Padding stands before it, and the last token
    asks::

        input    _ _ + n3 * n2 n5 =
        target   . . .  .  .  . .  n6

    Nothing in the sequence has to be recalled: the tables of addition and multiplication must be learnt, and applied in depth.
    """

    short = "mano"
    order = 23
    suite = "state"
    summary = "compute the value of an arithmetic expression, modulo a number"
    signs: ClassVar[dict[str, str]] = {"+": "+", "-": "-", "*": "*", "=": "=", "padding": "_"}
    background = frozenset({"padding"})

    vocab_size: int = 12
    length: int = 16
    num_train_examples: int = 51_200
    max_operators: Count = 3

    def check(self) -> None:
        if self.vocab_size < 7:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for numbers modulo 2, three operators, = and padding: "
                f"give at least 7"
            )
        if self.length < 2 * self.max_operators + 2:
            raise ArchlabError(
                f"{self.name}: length={self.length}: too short for max_operators={self.max_operators}: give at least "
                f"{2 * self.max_operators + 2}"
            )

    @property
    def modulus(self) -> int:
        """Number of ids that are numbers."""
        return self.vocab_size - 5

    @property
    def chance(self) -> float:
        return float(np.mean([_values(self.modulus, k) for k in range(1, self.max_operators + 1)], axis=0).max())

    def describe_tokens(self) -> dict[str, range]:
        roles = {"number": range(self.modulus)}
        return roles | {
            role: range(self.modulus + i, self.modulus + i + 1) for i, role in enumerate((*_OPERATORS, "=", "padding"))
        }

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m), n, self.length)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        tokens = np.full((n, self.length), self.vocab_size - 1, dtype=np.int32)
        targets = np.full((n, self.length), IGNORE, dtype=np.int32)
        tokens[:, -1] = self.vocab_size - 2
        for row, operators in enumerate(rng.integers(1, self.max_operators + 1, size=n).tolist()):
            expression: list[int] = []
            targets[row, -1] = self._extend(expression, operators, rng)
            tokens[row, self.length - 1 - len(expression) : -1] = expression
        return tokens, targets

    def _extend(self, expression: list[int], operators: int, rng: np.random.Generator) -> int:
        """Draw an expression with so many operators, append it, and return its value."""
        if operators == 0:
            number = int(rng.integers(self.modulus))
            expression.append(number)
            return number
        operator, left = int(rng.integers(3)), int(rng.integers(operators))
        expression.append(self.modulus + operator)
        one = self._extend(expression, left, rng)
        other = self._extend(expression, operators - 1 - left, rng)
        return (one + other, one - other, one * other)[operator] % self.modulus


@cache
def _values(modulus: int, operators: int) -> NDArray[np.float64]:
    """Probability of every value of an expression with so many operators: ``(modulus,)``."""
    if operators == 0:
        return np.full(modulus, 1 / modulus)
    numbers = np.arange(modulus)
    found = np.zeros(modulus)
    for left in range(operators):
        joint = np.outer(_values(modulus, left), _values(modulus, operators - 1 - left)).ravel() / operators / 3
        for value in (np.add.outer(numbers, numbers), np.subtract.outer(numbers, numbers), np.multiply.outer(numbers, numbers)):
            found += np.bincount((value % modulus).ravel(), weights=joint, minlength=modulus)
    return found
