"""DeltaProduct and Gated DeltaProduct: several steps of the delta rule for every token."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.fields import Count
from archlab.layers.deltanet import DeltaNet, DeltaNetConfig, GatedDeltaNet, GatedDeltaNetConfig
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.delta_rule import delta_rule_flops, gated_delta_rule, unit_length
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.registry import register


@register("deltaproduct")
class DeltaProductConfig(DeltaNetConfig):
    """DeltaProduct (arXiv 2502.10297, section 3): DeltaNet with ``householders`` steps for every token.

    Each step has its own key, value and rate, so a token multiplies the state by a product of as many generalised
    Householder matrices: with two it can rotate, with ``n`` permute ``n + 1`` elements. Other knobs: as
    :class:`DeltaNetConfig`, with rates of up to 2.
    """

    paper: ClassVar[str] = "arXiv 2502.10297"

    allow_neg_eigval: bool = True
    householders: Count = 2

    @override
    def _convolved(self, dim: int) -> int:
        return (1 + self.householders * (1 + self.expand_v)) * dim

    @override
    def _weights(self, dim: int) -> int:
        # Adds the rates of further steps.
        return super()._weights(dim) + (self.householders - 1) * dim * self.heads

    @override
    def flops(self, dim: int, length: int) -> int:
        steps = self.householders * length
        mixing = delta_rule_flops(*self._head(dim), steps, chunk_size(*self._head(dim), steps))
        return 2 * length * (self._weights(dim) + self.d_conv * self._convolved(dim)) + self.heads * mixing

    @override
    def build(self, dim: int, max_length: int) -> "DeltaProduct":
        self.validate(dim)
        return DeltaProduct(dim, self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval, self.householders)


@register("gated-deltaproduct")
class GatedDeltaProductConfig(DeltaProductConfig, GatedDeltaNetConfig):
    """Gated DeltaProduct (arXiv 2502.10297, section 3): Gated DeltaNet with ``householders`` steps for every token.

    The state decays once a token, before its first step. Knobs: as :class:`DeltaProductConfig`.
    """

    paper: ClassVar[str] = "arXiv 2502.10297"

    @override
    def build(self, dim: int, max_length: int) -> "GatedDeltaProduct":
        self.validate(dim)
        return GatedDeltaProduct(dim, self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval, self.householders)


class DeltaProduct(DeltaNet):
    """``o_t = q_t S_t / sqrt(K)``; ``S_t`` follows from ``S_{t-1}`` by steps ``S <- S + k_j (beta_j (v_j - k_j S))``, j = 1 to n.

    All else is as :class:`DeltaNet`. The parallel form runs the steps of all tokens as one sequence, ``n`` times as long, in
    which only the last step of a token is read.
    """

    def __init__(self, dim: int, heads: int, values: int, d_conv: int, allow_neg_eigval: bool, householders: int) -> None:
        """``values`` is the width over all ``heads``, for one step."""
        super().__init__(dim, heads, values, d_conv, allow_neg_eigval)
        self.householders = householders
        self.split = [dim, householders * dim, householders * values]
        self.qkv_proj = nn.Linear(dim, sum(self.split), bias=False)
        self.conv = ShortConv(sum(self.split), d_conv, bias=False)
        self.beta_proj = nn.Linear(dim, householders * heads, bias=False)

    @override
    def _project(self, x: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        # Queries and log decays (..., heads, width); keys, values and rates (..., steps, heads, width).
        q, k, v = torch.split(at_least_float32(F.silu(qkv)), self.split, -1)
        steps = *x.shape[:-1], self.householders, self.heads, -1
        q, k, v = q.view(*x.shape[:-1], self.heads, -1), k.view(steps), v.view(steps)
        beta = self.max_beta * at_least_float32(self.beta_proj(x)).sigmoid().view(steps)
        return unit_length(q) * q.shape[-1] ** -0.5, unit_length(k), v, beta, self._log_decay(x).expand(*q.shape[:-1], 1)

    @override
    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, beta, log_decay = self._project(x_bld, self.conv(self.qkv_proj(x_bld)))
        further = self.householders - 1
        q = F.pad(q.unsqueeze(2), (0, 0, 0, 0, further, 0))
        log_decay = F.pad(log_decay.unsqueeze(2), (0, 0, 0, 0, 0, further))
        chunk = chunk_size(k.shape[-1], v.shape[-1], self.householders * x_bld.shape[1])
        with no_autocast(x_bld):
            q, k, v, beta, log_decay = (t.flatten(1, 2) for t in (q, k, v, beta, log_decay))
            mixed = gated_delta_rule(q, k, v, beta, log_decay, chunk)
        return self._read_out(x_bld, mixed[:, further :: self.householders])

    @override
    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        keys, values = self.split[0] // self.heads, len(self.norm.weight)
        matrix = self.qkv_proj.weight.new_zeros(batch_size, self.heads, keys, values)
        return {"kv": matrix, "conv": self.conv.init_state(batch_size)}

    @override
    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        qkv, conv = self.conv.step(self.qkv_proj(x_bd), state["conv"])
        q, keys, values, rates, log_decay = self._project(x_bd, qkv)
        kv = log_decay.exp()[..., None] * state["kv"]
        for k, v, beta in zip(keys.unbind(1), values.unbind(1), rates.unbind(1), strict=True):
            written = beta * (v - (k[..., None] * kv).sum(-2))
            kv = kv + k[..., None] * written[..., None, :]
        return self._read_out(x_bd, (q[..., None] * kv).sum(-2)), {"kv": kv, "conv": conv}


class GatedDeltaProduct(DeltaProduct, GatedDeltaNet):
    """:class:`DeltaProduct` on the decaying state, and with the output's gate, of :class:`GatedDeltaNet`."""
