"""Mixture of gated units: a channel mixer of which each token reads a few parts."""

from dataclasses import replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from archlab.fields import Count, Natural
from archlab.layers.contract import LayerConfig
from archlab.layers.mlp import ChannelMixer, inner_width
from archlab.layers.ops.routing import Router, router_params
from archlab.layers.registry import register
from archlab.layers.side_by_side import Choice, check_choice


@register("moe")
class MoEConfig(ChannelMixer):
    """``num`` gated units, ``y = sum_e w_e W3_e (W1_e x * gelu(W2_e x))`` with the weights of the ``active`` chosen ones.

    Weights and balance are those of :class:`archlab.layers.ops.routing.Router`. Every unit computes every token, as one
    wide matrix product, and ``flops`` counts that; ``active_flops`` counts the chosen.

    ``reference`` is MAD's released code: its softmax gives a weight to every unit (see the router), and its last map,
    ``num`` times as large, goes from all units to all, so they are mixed before they are weighted.

    Source: Shazeer et al. 2017 (arXiv 1701.06538); MAD (arXiv 2403.17844), whose inner width is 16.
    """

    paper: ClassVar[str] = "arXiv 1701.06538"

    num: Count = 8
    active: Choice = 2
    inner: Natural = 0
    """Inner width of a unit; 0 for that which gives all of them together the parameters of ``swiglu``."""
    reference: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, self.num, self.active)

    def _units(self, dim: int) -> int:
        """Inner width of all units."""
        return self.num * (self.inner or -(-inner_width(dim) // self.num))

    def _weights(self, dim: int) -> int:
        """Weights of all units, without the biases of the reference's router."""
        return self._units(dim) * dim * (2 + (self.num if self.reference else 1))

    def resized(self, dim: int, factor: float) -> LayerConfig:
        return replace(self, inner=max(1, round(factor * self._units(dim) / self.num)))

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + router_params(dim, self.num)

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * (self._weights(dim) + dim * self.num)

    def active_flops(self, dim: int, length: int) -> int:
        weights = self._weights(dim) if self.reference else self._weights(dim) * self.active // self.num
        return 2 * length * (weights + dim * self.num)

    def paper_flops(self, dim: int, length: int) -> float:
        return float(self.active_flops(dim, length))

    def build(self, dim: int, max_length: int) -> "MoE":
        return MoE(dim, self._units(dim), self)


class MoE(nn.Module):
    """Gated units behind a router, built by :class:`MoEConfig`."""

    def __init__(self, dim: int, units: int, config: MoEConfig) -> None:
        super().__init__()
        self.reference = config.reference
        self.router = Router(dim, config.num, config.active, config.reference)
        self.gate = nn.Linear(dim, units, bias=False)
        self.up = nn.Linear(dim, units, bias=False)
        self.down = nn.Linear(units, dim * config.num if config.reference else dim, bias=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        weights_ble = self.router(x_bld)
        hidden_blu = self.up(x_bld) * F.gelu(self.gate(x_bld), approximate="tanh")
        if self.reference:
            mixed_blde: Tensor = self.down(hidden_blu).view(*x_bld.shape, -1)
            out_bld: Tensor = (mixed_blde * weights_ble[..., None, :]).sum(-1)
        else:
            weighted_blei = hidden_blu.view(*weights_ble.shape, -1) * weights_ble[..., None]
            out_bld = self.down(weighted_blei.flatten(-2))
        return out_bld
