"""Channel mixers: two-layer perceptron and its gated form, applied to every position alone."""

from dataclasses import replace
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.fields import Natural
from archlab.layers.contract import LayerConfig
from archlab.layers.knobs import Factor
from archlab.layers.registry import register


class MLP(nn.Module):
    """``W2 gelu(W1 x)`` with the tanh form of GELU."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_bld), approximate="tanh"))


class SwiGLU(nn.Module):
    """``W3 (silu(W1 x) * W2 x)``."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, inner, bias=False)
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_bld)) * self.up(x_bld))


def inner_width(dim: int) -> int:
    """Inner width of a gated unit with about the parameters of :class:`MLPConfig`: 8/3 of the width, in sixteens."""
    return 16 * -(-int(8 * dim / 3) // 16)


class ChannelMixer(LayerConfig):
    """Base of the channel mixers: no state, and two operations a weight and position."""

    kind: ClassVar[Literal["sequence", "channel"]] = "channel"

    def state_size(self, dim: int, length: int) -> int:
        return 0

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * self.num_params(dim, length)


@register("mlp")
class MLPConfig(ChannelMixer):
    """Two linear maps without biases around a GELU."""

    paper: ClassVar[str] = "arXiv 1706.03762, eq. 2; 1606.08415"

    expand: Factor = 4.0
    """Inner width over ``dim``."""

    def validate(self, dim: int) -> None:
        if self._inner(dim) < 1:
            raise ArchlabError(
                f"mlp(expand={self.expand}): no inner channel is left at width {dim}; use at least expand={1 / dim:g}"
            )

    def _inner(self, dim: int) -> int:
        return round(self.expand * dim)

    def resized(self, dim: int, factor: float) -> LayerConfig:
        return replace(self, expand=max(1, round(factor * self._inner(dim))) / dim)

    def num_params(self, dim: int, length: int) -> int:
        return 2 * dim * self._inner(dim)

    def build(self, dim: int, max_length: int) -> MLP:
        self.validate(dim)
        return MLP(dim, self._inner(dim))


@register("swiglu")
class SwiGLUConfig(ChannelMixer):
    """Gated linear unit with a SiLU gate, without biases."""

    paper: ClassVar[str] = "arXiv 2002.05202, eq. 6"

    inner: Natural = 0
    """Inner width; 0 takes two thirds of ``4 dim``, rounded up to a multiple of 16, so that the
    parameters are those of :class:`MLPConfig`."""

    def resized(self, dim: int, factor: float) -> LayerConfig:
        return replace(self, inner=max(1, round(factor * self._inner(dim))))

    def num_params(self, dim: int, length: int) -> int:
        return 3 * dim * self._inner(dim)

    def _inner(self, dim: int) -> int:
        return self.inner or inner_width(dim)

    def paper_flops(self, dim: int, length: int) -> float:
        return 2.0 * length * self.num_params(dim, length)

    def build(self, dim: int, max_length: int) -> SwiGLU:
        self.validate(dim)
        return SwiGLU(dim, self._inner(dim))
