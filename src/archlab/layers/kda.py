"""Kimi Delta Attention: the delta rule on a matrix state that forgets channel by channel."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.layers.deltanet import DeltaNet, DeltaNetConfig
from archlab.layers.ops.precision import at_least_float32
from archlab.layers.ops.step_size import step_size_bias
from archlab.layers.registry import register


@register("kda")
@dataclass(frozen=True)
class KDAConfig(DeltaNetConfig):
    """Kimi Delta Attention (arXiv 2510.26692, section 3): Gated DeltaNet with a decay for each channel of the keys.

    Knobs: as :class:`archlab.layers.deltanet.DeltaNetConfig`. Decays and the output's gate are of low rank, a head's
    width of values.
    """

    paper: ClassVar[str] = "arXiv 2510.26692"

    @override
    def _decay_dim(self, dim: int) -> int:
        # One for each channel of the keys.
        return self._head(dim)[0]

    @override
    def _weights(self, dim: int) -> int:
        # Adds decays and the output's gate.
        return super()._weights(dim) + self._head(dim)[1] * (3 + self.expand_v) * dim

    @override
    def _vectors(self, dim: int) -> int:
        # Adds each head's rate, each channel's step size, and the bias of the gate.
        return super()._vectors(dim) + self.heads + (1 + self.expand_v) * dim

    @override
    def build(self, dim: int, max_length: int) -> "KDA":
        self.validate(dim)
        return KDA(dim, self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval)


class KDA(DeltaNet):
    """``S_t = D_t S_{t-1} + k_t (beta_t (v_t - k_t D_t S_{t-1}))`` with ``D_t = diag(exp(-A softplus(W2 W1 x_t + b)))``.

    The normalised output of each head is multiplied by ``sigmoid(V2 V1 x_t + c)``; all else as :class:`DeltaNet`.
    """

    def __init__(self, dim: int, heads: int, values: int, d_conv: int, allow_neg_eigval: bool) -> None:
        """``A``, one a head, starts uniform in [1, 16], the softplus of ``b`` log-uniform in [0.001, 0.1]."""
        super().__init__(dim, heads, values, d_conv, allow_neg_eigval)
        rank = values // heads
        self.dt_proj = nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim, bias=False))
        self.dt_bias = nn.Parameter(step_size_bias(dim))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.gate_proj = nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, values))
        for parameter in (self.dt_bias, self.A_log):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    @override
    def _log_decay(self, x: Tensor) -> Tensor:
        # (..., heads, keys).
        dt = F.softplus(at_least_float32(self.dt_proj(x)) + self.dt_bias)
        return -self.A_log.exp()[:, None] * dt.view(*x.shape[:-1], self.heads, -1)

    @override
    def _gate(self, x: Tensor, normed: Tensor) -> Tensor:
        return normed * torch.sigmoid(self.gate_proj(x)).view_as(normed)
