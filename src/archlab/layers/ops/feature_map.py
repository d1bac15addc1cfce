"""Feature maps of linear attention: what stands in for the exponential of softmax."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override


class FeatureMap(nn.Module, ABC):
    """Maps the last axis, a head of width ``dim``, to features of width ``width(dim)``."""

    maps: ClassVar[int] = 0
    """Linear maps of a head to its own width, with biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    @classmethod
    def width(cls, dim: int) -> int:
        """Features of a head of width ``dim``."""
        return dim

    @classmethod
    def num_params(cls, dim: int) -> int:
        """Trainable scalars."""
        return cls.maps * dim * (dim + 1)

    @classmethod
    def flops(cls, dim: int) -> int:
        """Floating-point operations for one token of one head."""
        return 2 * cls.maps * dim * dim

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., width(dim))."""


class _NarrowLinear(nn.Linear):
    """A linear map of heads whose weight's gradient is (in, tokens) times (tokens, out): of 8 channels in a tenth of the time."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, self.in_features), self.weight.t().contiguous()).view(*x.shape[:-1], -1)


class Elu(FeatureMap):
    """``elu(x) + 1``, positive (arXiv 2006.16236, equation 7)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x) + 1


class Identity(FeatureMap):
    """``x`` itself, of either sign."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Relu(FeatureMap):
    """``max(x, 0)``."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class ElementwiseProduct(FeatureMap):
    """``(W1 x + b1) * (W2 x + b2)``, of either sign: second-order in ``x`` at no extra width."""

    maps = 2

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.factors = _NarrowLinear(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.factors(x).chunk(2, dim=-1)
        return first * second


class T2R(FeatureMap):
    """``max(W x + b, 0)`` (transformer to RNN, arXiv 2103.13076)."""

    maps = 1

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.proj = _NarrowLinear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.proj(x))


class Hedgehog(T2R):
    """``softmax([2 (W x + b), -2 (W x + b)])``, positive (arXiv 2402.04347)."""

    def __init__(self, dim: int) -> None:
        """Starts with the identity for ``W`` and ``b = 0``."""
        super().__init__(dim)
        nn.init.eye_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    @classmethod
    @override
    def width(cls, dim: int) -> int:
        return 2 * dim

    def forward(self, x: Tensor) -> Tensor:
        logits = 2 * self.proj(x)
        return torch.cat([logits, -logits], dim=-1).softmax(-1)


class DPFP(FeatureMap):
    """``y_i y_{i+j}`` for ``j`` up to 4, with ``y = [max(x, 0), max(-x, 0)]`` taken as a circle (arXiv 2102.11174, section 5.3).

    Not negative: a deterministic, parameter-free projection.
    """

    nu = 4
    """Neighbours that each entry is multiplied with."""

    @classmethod
    @override
    def width(cls, dim: int) -> int:
        return 2 * cls.nu * dim

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(torch.cat([x, -x], dim=-1))
        return torch.cat([y * y.roll(shift, dims=-1) for shift in range(1, self.nu + 1)], dim=-1)


class Taylor(FeatureMap):
    """The products that make ``f(x) . f(y) = 1 + s + s**2 / 2`` with ``s = x . y / sqrt(dim)`` (arXiv 2402.18668).

    That is at least one half: the second-order expansion of ``exp(s)``. Products of two channels occur once.
    """

    @classmethod
    @override
    def width(cls, dim: int) -> int:
        return 1 + dim + dim * (dim + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        x = x * dim**-0.25
        pairs = [x[..., i, None] * x[..., i + 1 :] for i in range(dim - 1)]
        return torch.cat([torch.ones_like(x[..., :1]), x, x.square() * 2**-0.5, *pairs], dim=-1)


FEATURE_MAPS: Mapping[str, type[FeatureMap]] = {
    "elementwise-product": ElementwiseProduct,
    "elu": Elu,
    "relu": Relu,
    "identity": Identity,
    "t2r": T2R,
    "hedgehog": Hedgehog,
    "dpfp": DPFP,
    "taylor": Taylor,
}
"""Every feature map by the name that a spec gives it."""
