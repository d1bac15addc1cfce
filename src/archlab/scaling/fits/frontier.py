"""The compute-optimal frontier: size, tokens and loss of every budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from archlab.errors import ArchlabError
from archlab.scaling.fits.columns import Floats, array
from archlab.scaling.fits.power_law import PowerLaw


@dataclass(frozen=True)
class Frontier:
    """Compute-optimal size and tokens as power laws of the FLOPs, and the loss there: ``L = E + excess(C)``."""

    size: PowerLaw
    tokens: PowerLaw
    E: float
    """The loss that no budget goes below."""
    excess: PowerLaw

    def loss(self, C: ArrayLike) -> Floats:  # noqa: N803 - the field's symbols
        """Return the least loss of a budget of ``C`` FLOPs."""
        return self.E + self.excess(C)

    def flops(self, loss: ArrayLike) -> Floats:
        """Return the FLOPs of the budget that reaches a loss, of the same shape.

        Raises:
            ArchlabError: no budget does.
        """
        wanted = array("loss", loss, np.float64)
        bad = wanted[~(wanted > self.E)]
        if bad.size:
            raise ArchlabError(
                f"loss {bad.min():.4g}: no budget reaches it by this fit, whose floor E is {self.E:.4g}: ask above"
            )
        return self.excess.inverse(wanted - self.E)
