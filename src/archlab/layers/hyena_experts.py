"""Hyena experts: one long convolution for the channels of several experts, of which each token reads a few."""

import math
from typing import ClassVar

from torch import Tensor, nn

from archlab.fields import Count, Natural
from archlab.layers.contract import LayerConfig
from archlab.layers.hyena import KERNEL_SIZE, Hyena, State
from archlab.layers.ops.gated_long_conv import gated_long_conv
from archlab.layers.ops.implicit_filter import ImplicitFilter
from archlab.layers.ops.long_conv import TOEPLITZ_MAX_LENGTH, conv_flops
from archlab.layers.ops.routing import Router, router_params
from archlab.layers.registry import register
from archlab.layers.side_by_side import Choice, check_choice


@register("hyena-experts")
class HyenaExpertsConfig(LayerConfig):
    """Hyena over ``num`` experts of ``inner`` channels each; ``y = W_o sum_e w_e h_e`` from their outputs.

    Weights and balance are those of :class:`archlab.layers.ops.routing.Router`, the rest is
    :class:`archlab.layers.hyena.HyenaConfig` with untied projections. A token chooses which outputs it reads; the
    convolution takes in all tokens for all experts. Of its matrix form ``active_flops`` counts the chosen outputs; a
    Fourier transform cannot leave any out. ``reference`` is the routing of MAD's released code.

    Source: MAD (arXiv 2403.17844) and its released code, whose defaults these are.
    """

    paper: ClassVar[str] = "arXiv 2403.17844"

    num: Count = 8
    active: Choice = 2
    inner: Natural = 16
    """Channels of an expert; 0 for that which gives all of them together the width, as the default does at width 128."""
    filter_order: Count = 16
    reference: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, self.num, self.active)

    def width(self, dim: int) -> int:
        """Channels of an expert."""
        return self.inner or -(-dim // self.num)

    def _channels(self, dim: int) -> int:
        return self.num * self.width(dim)

    def num_params(self, dim: int, length: int) -> int:
        channels = self._channels(dim)
        projections = (dim + 1 + KERNEL_SIZE + 1) * 3 * channels + (self.width(dim) + 1) * dim
        kernels = ImplicitFilter.num_params(channels, length, self.filter_order) + channels
        return projections + kernels + router_params(dim, self.num)

    def matrix_state(self, dim: int, length: int) -> int:
        return (length - 1) * self._channels(dim)

    def state_size(self, dim: int, length: int) -> int:
        # As ``hyena``, the filtered signal and inputs of the short convolution.
        return self.matrix_state(dim, length) + (KERNEL_SIZE - 1) * 3 * self._channels(dim)

    def flops(self, dim: int, length: int) -> int:
        return self._flops(dim, length, self._channels(dim))

    def active_flops(self, dim: int, length: int) -> int:
        return self._flops(dim, length, self._channels(dim) if self.reference else self.active * self.width(dim))

    def _flops(self, dim: int, length: int, read: int) -> int:
        """``read``: channels whose convolution is computed, where that is a choice."""
        channels = self._channels(dim)
        projections = (dim + KERNEL_SIZE + 1) * 3 * channels + self.width(dim) * dim + dim * self.num
        mixing = conv_flops(read if length <= TOEPLITZ_MAX_LENGTH else channels, length, length)
        return 2 * length * projections + ImplicitFilter.flops(channels, length, self.filter_order) + mixing

    def paper_flops(self, dim: int, length: int) -> float:
        width, inner = self.width(dim), self._channels(dim)
        long = 10 * length * math.log2(length) * inner + 4 * length * inner
        filters = self.filter_order * length * inner
        return 6 * length * dim * inner + 18 * length * inner + filters + long + 2 * length * dim * (width + self.num)

    def build(self, dim: int, max_length: int) -> "HyenaExperts":
        return HyenaExperts(dim, max_length, self)


class HyenaExperts(Hyena):
    """Hyena behind a router, built by :class:`HyenaExpertsConfig`. Channel ``c`` belongs to expert ``c`` modulo their number."""

    def __init__(self, dim: int, max_length: int, config: HyenaExpertsConfig) -> None:
        width = config.width(dim)
        super().__init__(dim, config.num * width, max_length, 1, config.filter_order, "implicit")
        self.out_proj = nn.Linear(width, dim)
        self.router = Router(dim, config.num, config.active, config.reference)

    def forward(self, x_bld: Tensor) -> Tensor:
        weights_ebl = self.router(x_bld).movedim(-1, 0)
        y_cbl = gated_long_conv(self.project(x_bld), *self.short_kernel(), self.kernel(x_bld.shape[1]))
        return self.read_out((y_cbl.view(-1, *weights_ebl.shape) * weights_ebl).sum(1))

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        weights_be = self.router(x_bd)
        x0_bc, x1_bc, v_bc, short_bkc = self.project_step(x_bd, state["short"])
        y_bc, signal_blc = self.filter_step(x1_bc * v_bc, state["signal"])
        y_bi = ((x0_bc * y_bc).view(len(y_bc), -1, weights_be.shape[-1]) * weights_be[:, None]).sum(-1)
        return self.out_proj(y_bi), {"short": short_bkc, "signal": signal_blc}
