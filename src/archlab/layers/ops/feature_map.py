"""Feature maps of linear attention: what stands in for the exponential of softmax."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn


class FeatureMap(nn.Module, ABC):
    """Maps the last axis, a head of width ``dim``, to features of width ``width(dim)``."""

    def __init__(self, dim: int) -> None:
        """For heads of width ``dim``."""
        super().__init__()

    @classmethod
    def width(cls, dim: int) -> int:
        """Features of a head of width ``dim``."""
        return dim

    @classmethod
    def num_params(cls, dim: int) -> int:
        """Trainable scalars."""
        return 0

    @classmethod
    def flops(cls, dim: int) -> int:
        """Floating-point operations for one token of one head."""
        return 0

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., width(dim))."""


class Elu(FeatureMap):
    """``elu(x) + 1``, positive (arXiv 2006.16236, equation 7)."""

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`FeatureMap`."""
        return F.elu(x) + 1


class ElementwiseProduct(FeatureMap):
    """``(W1 x + b1) * (W2 x + b2)``, of either sign: second-order in ``x`` at no extra width."""

    def __init__(self, dim: int) -> None:
        """For heads of width ``dim``."""
        super().__init__(dim)
        self.factors = nn.Linear(dim, 2 * dim)

    @classmethod
    def num_params(cls, dim: int) -> int:
        """See :class:`FeatureMap`."""
        return 2 * dim * (dim + 1)

    @classmethod
    def flops(cls, dim: int) -> int:
        """See :class:`FeatureMap`."""
        return 4 * dim * dim

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`FeatureMap`."""
        first, second = self.factors(x).chunk(2, dim=-1)
        product: Tensor = first * second
        return product


FEATURE_MAPS: Mapping[str, type[FeatureMap]] = {"elementwise-product": ElementwiseProduct, "elu": Elu}
"""Every feature map by the name that a spec gives it."""
