"""Noisy in-context recall: in-context recall among tokens to be ignored."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Natural, at_least, below
from archlab.tasks.in_context_recall import InContextRecall
from archlab.tasks.registry import register


@register("noisy-in-context-recall")
class NoisyInContextRecall(InContextRecall):
    """In-context recall with slots of noise between the pairs (arXiv 2403.17844, section 3.1).

    The last ``noise_vocab_size`` ids (before the copy token, if there is one) are noise. Each pair slot
    of the context holds, with probability ``frac_noise``, two noise tokens instead; one slot, drawn
    beforehand from all slots with the probe's, never does, and a context of nothing but noise is drawn
    again::

        input    k3 v1 n7 n2 k0 v5 k3 v1 n1 n1 k0
        target    .  .  .  .  .  . v1  .  .  . v5
    """

    short = "noisy"
    order = 2
    summary = "recall the value that followed a key earlier, among tokens to be ignored"
    background = frozenset({"noise"})

    vocab_size: int = 32
    noise_vocab_size: Natural = 16
    frac_noise: Annotated[float, at_least(0), below(1)] = 0.2

    def check(self) -> None:
        if self.frac_noise > 0 and self.noise_vocab_size == 0:
            raise ArchlabError(
                f"{self.name}: frac_noise={self.frac_noise} needs a noise vocabulary: give noise_vocab_size of at least 1"
            )
        super().check()

    @property
    @override
    def _num_noise_tokens(self) -> int:
        return self.noise_vocab_size

    def describe_tokens(self) -> dict[str, range]:
        first = self._num_pair_tokens
        return super().describe_tokens() | {"noise": range(first, first + self.noise_vocab_size)}

    @override
    def _draw_noise_slots(self, rng: np.random.Generator, n: int, slots: int) -> NDArray[np.bool_]:
        is_noise = np.ones((n, slots), dtype=np.bool_)
        undrawn = np.arange(n)
        while undrawn.size:
            drawn = rng.random((undrawn.size, slots)) < self.frac_noise
            never_noise = rng.integers(slots + 1, size=(undrawn.size, 1))
            is_noise[undrawn] = drawn & (never_noise != np.arange(slots))
            undrawn = undrawn[is_noise[undrawn].all(axis=1)]
        return is_noise

    @override
    def _draw_noise(self, rng: np.random.Generator, slots: int) -> NDArray[np.int32]:
        if self.noise_vocab_size == 0:
            return super()._draw_noise(rng, slots)
        first = self._num_pair_tokens
        return rng.integers(first, first + self.noise_vocab_size, size=(slots, 2), dtype=np.int32)
