"""Canon and LIV: short convolutions, by which every token takes in a little of the few before it."""

from typing import ClassVar

from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import LayerConfig
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.registry import register


@register("canon")
class CanonConfig(LayerConfig):
    """Canon layer (arXiv 2512.17351): a residual depthwise causal convolution, without activation and bias.

    Before attention it is the paper's Canon-A, before an MLP its Canon-C. Knob: ``d_conv``, taps of the convolution.
    """

    paper: ClassVar[str] = "arXiv 2512.17351"

    d_conv: Count = 4

    def num_params(self, dim: int, length: int) -> int:
        return self.d_conv * dim

    def state_size(self, dim: int, length: int) -> int:
        # The inputs the convolution looks back on.
        return (self.d_conv - 1) * dim

    def matrix_state(self, dim: int, length: int) -> int:
        return 0

    def flops(self, dim: int, length: int) -> int:
        # The taps on earlier tokens; that on the token itself scales it, as a gate does.
        lags = min(self.d_conv, length) - 1
        return dim * lags * (2 * length - lags - 1)

    def build(self, dim: int, max_length: int) -> nn.Module:
        return Canon(dim, self.d_conv)


@register("liv")
class LIVConfig(CanonConfig):
    """The gated short convolution of LFM2 (arXiv 2511.23404), a linear input-varying operator (STAR, arXiv 2411.17800).

    Knob: ``d_conv``, taps of the convolution.
    """

    paper: ClassVar[str] = "arXiv 2511.23404"

    d_conv: Count = 3

    def num_params(self, dim: int, length: int) -> int:
        return 4 * dim * dim + self.d_conv * dim

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * self.num_params(dim, length)

    def build(self, dim: int, max_length: int) -> "LIV":
        return LIV(dim, self.d_conv)


class Canon(nn.Module):
    """``y = x + conv(x)``, channel by channel."""

    def __init__(self, dim: int, d_conv: int) -> None:
        super().__init__()
        self.conv = ShortConv(dim, d_conv, bias=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        return self.conv(x_bld, skip=1)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        y_bd, conv = self.conv.step(x_bd, state["conv"])
        return x_bd + y_bd, {"conv": conv}


class LIV(nn.Module):
    """``y = W_out (c * conv(b * u))`` with ``[b, c, u] = W_in x``: linear gates, no activation, no bias."""

    def __init__(self, dim: int, d_conv: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = ShortConv(dim, d_conv, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        b_bld, c_bld, u_bld = self.in_proj(x_bld).chunk(3, -1)
        return self.out_proj(c_bld * self.conv(b_bld * u_bld))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        b_bd, c_bd, u_bd = self.in_proj(x_bd).chunk(3, -1)
        y_bd, conv = self.conv.step(b_bd * u_bd, state["conv"])
        return self.out_proj(c_bd * y_bd), {"conv": conv}
