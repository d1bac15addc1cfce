"""Log-linear attention: a state for each bucket of a past that is kept in buckets of growing size."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.deltanet import GatedDeltaNet, GatedDeltaNetConfig
from archlab.layers.mamba import Mamba2, Mamba2Config
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.fenwick import (
    fenwick_delta_rule,
    fenwick_delta_rule_flops,
    fenwick_linear_attention,
    fenwick_linear_attention_flops,
    num_levels,
)
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.registry import register


@register("log-linear-attention")
class LogLinearAttentionConfig(Mamba2Config):
    """Log-linear Mamba-2 (arXiv 2506.04761): states for the last 1, 2, 4, ... tokens, weighed by the token that reads.

    Knobs: as :class:`archlab.layers.mamba.Mamba2Config`. The number of states, and with it that of the parameters,
    grows with the logarithm of the length.
    """

    paper: ClassVar[str] = "arXiv 2506.04761"

    def num_params(self, dim: int, length: int) -> int:
        _, heads, _ = self._sizes(dim)
        return super().num_params(dim, length) + (dim + 1) * heads * num_levels(length)

    def matrix_state(self, dim: int, length: int) -> int:
        # As Mamba-2, with a matrix for every level but the token itself.
        return (num_levels(length) - 1) * super().matrix_state(dim, length)

    def flops(self, dim: int, length: int) -> int:
        inner, heads, convolved = self._sizes(dim)
        weights = dim * (2 * inner + convolved + heads * (1 + num_levels(length))) + self.d_conv * convolved
        head = self.d_state, self.headdim, length
        return 2 * length * weights + heads * fenwick_linear_attention_flops(*head, chunk_size(*head))

    def build(self, dim: int, max_length: int) -> "LogLinearAttention":
        self.validate(dim)
        return LogLinearAttention(dim, self.expand * dim, self.headdim, self.d_state, self.d_conv, num_levels(max_length))


@register("log-linear-gated-deltanet")
class LogLinearGatedDeltaNetConfig(GatedDeltaNetConfig):
    """Log-linear Gated DeltaNet (arXiv 2506.04761): as log-linear Mamba-2, with states that follow the gated delta rule.

    Knobs: as :class:`archlab.layers.deltanet.GatedDeltaNetConfig`.
    """

    paper: ClassVar[str] = "arXiv 2506.04761"

    def num_params(self, dim: int, length: int) -> int:
        return super().num_params(dim, length) + (dim + 1) * self.heads * num_levels(length)

    def matrix_state(self, dim: int, length: int) -> int:
        # As Gated DeltaNet, with a matrix for every level but the token itself.
        return (num_levels(length) - 1) * super().matrix_state(dim, length)

    def flops(self, dim: int, length: int) -> int:
        head = *self._head(dim), length
        weights = self._weights(dim) + self.d_conv * self._convolved(dim) + dim * self.heads * num_levels(length)
        return 2 * length * weights + self.heads * fenwick_delta_rule_flops(*head, chunk_size(*head))

    def build(self, dim: int, max_length: int) -> "LogLinearGatedDeltaNet":
        self.validate(dim)
        knobs = self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval
        return LogLinearGatedDeltaNet(dim, *knobs, num_levels(max_length))


class LevelWeights(nn.Module):
    """``w_te = softplus(l_e (W x_t)_e)`` for each head: how much a token reads of each of its buckets.

    The past of a token lies in buckets, one for each binary 1 of its position, from 0, the nearest the smallest. Bucket
    ``e`` holds ``2**(e-1)`` tokens, bucket 0 the token itself. There are buckets for any length: beyond the maximum
    length the largest takes in what overflows.
    """

    def __init__(self, dim: int, heads: int, levels: int) -> None:
        """All ``l_e`` start at 1."""
        super().__init__()
        self.proj = nn.Linear(dim, heads * levels, bias=False)
        self.scale = nn.Parameter(torch.ones(heads, levels))
        self.scale._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., H, E)."""
        return F.softplus(self.scale * at_least_float32(self.proj(x)).view(*x.shape[:-1], *self.scale.shape))

    def init_state(self, matrix_bhkv: Tensor) -> dict[str, Tensor]:
        """Empty buckets (B, E - 1, H, K, V), like the matrix states of a recurrence with one, and the position (B)."""
        empty = matrix_bhkv[:, None].repeat(1, self.scale.shape[1] - 1, 1, 1, 1)
        return {"buckets": empty, "position": torch.zeros(len(empty), dtype=torch.int64, device=empty.device)}

    def read(self, x_bd: Tensor, q_bhk: Tensor, buckets_behkv: Tensor) -> Tensor:
        """Values (B, H, V) that ``q`` reads of all buckets (B, E, H, K, V) at the token's weights."""
        return torch.einsum("bhk,bhe,behkv->bhv", q_bhk, self(x_bd), buckets_behkv)

    @staticmethod
    def carry(buckets_behkv: Tensor, position_b: Tensor) -> dict[str, Tensor]:
        """The state after the token at ``position``: buckets merge as adding 1 to it in binary carries.

        The bucket at the lowest binary 1 of the next position takes in all smaller ones.
        """
        position_b = position_b + 1
        level = torch.arange(buckets_behkv.shape[1], device=position_b.device)
        lowest_b1 = (position_b[:, None] % 2 ** level[:-1] == 0).sum(1, keepdim=True)
        emptied, merged = (at[..., None, None, None] for at in (level < lowest_b1, level == lowest_b1))
        carried = torch.where(merged, buckets_behkv.cumsum(1), buckets_behkv.masked_fill(emptied, 0))
        return {"buckets": carried[:, 1:], "position": position_b}


class LogLinearAttention(Mamba2):
    """``y_t = sum over levels e of w_te C_t S_te + D x_t``, with weights ``w`` as :class:`LevelWeights`.

    ``S_te`` is the state of :class:`archlab.layers.mamba.Mamba2` after the tokens of bucket ``e`` alone, decayed since.
    With all weights 1 the layer is Mamba-2.
    """

    def __init__(self, dim: int, inner: int, headdim: int, d_state: int, d_conv: int, levels: int) -> None:
        super().__init__(dim, inner, headdim, d_state, d_conv)
        self.levels = LevelWeights(dim, self.heads, levels)

    def forward(self, x_bld: Tensor) -> Tensor:
        z, xbc, dt = self.in_proj(x_bld).split(self.in_split, dim=-1)
        c, b, x, dt, log_decay = self._heads(self.conv(xbc), dt)
        weights = self.levels(x_bld)
        with no_autocast(x_bld):
            chunk = chunk_size(b.shape[-1], x.shape[-1], x_bld.shape[1])
            y = fenwick_linear_attention(c, b, dt * x, log_decay, weights, chunk)
        return self._read_out(y, x, z)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        # Empty buckets (B, E - 1, H, N, P), an empty convolution window (B, K - 1, C), and the position (B).
        state = super().init_state(batch_size)
        return {"conv": state["conv"], **self.levels.init_state(state["ssm"])}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        z, xbc, dt = self.in_proj(x_bd).split(self.in_split, dim=-1)
        xbc, conv = self.conv.step(xbc, state["conv"])
        c, b, x, dt, log_decay = self._heads(xbc, dt)
        own = b[..., None] * (dt * x)[..., None, :]
        buckets = torch.cat([own[:, None], log_decay.exp()[:, None, :, None, None] * state["buckets"]], 1)
        y = self._read_out(self.levels.read(x_bd, c, buckets), x, z)
        return y, {"conv": conv, **self.levels.carry(buckets, state["position"])}


class LogLinearGatedDeltaNet(GatedDeltaNet):
    """``o_t = sum over levels e of w_te q_t S_te / sqrt(K)``, with weights ``w`` as :class:`LevelWeights`.

    ``S_te`` is the state of :class:`archlab.layers.deltanet.GatedDeltaNet` after the tokens of bucket ``e`` alone; later
    tokens decay it and erase what their keys find there. With all weights 1 the layer is Gated DeltaNet.
    """

    def __init__(self, dim: int, heads: int, values: int, d_conv: int, allow_neg_eigval: bool, levels: int) -> None:
        super().__init__(dim, heads, values, d_conv, allow_neg_eigval)
        self.levels = LevelWeights(dim, heads, levels)

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, beta, log_decay = self._project(x_bld, self.conv(self.qkv_proj(x_bld)))
        weights = self.levels(x_bld)
        with no_autocast(x_bld):
            chunk = chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1])
            mixed = fenwick_delta_rule(q, k, v, beta[..., 0], log_decay[..., 0], weights, chunk)
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        # Empty buckets (B, E - 1, heads, keys, values), an empty convolution window (B, K - 1, C), and the position (B).
        state = super().init_state(batch_size)
        return {"conv": state["conv"], **self.levels.init_state(state["kv"])}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        qkv, conv = self.conv.step(self.qkv_proj(x_bd), state["conv"])
        q, k, v, beta, log_decay = self._project(x_bd, qkv)
        past = log_decay.exp()[:, None, ..., None] * state["buckets"]
        found = torch.einsum("bhk,behkv->behv", k, past)
        past = past - k[:, None, ..., None] * (beta[:, None] * found)[..., None, :]
        own = k[..., None] * (beta * v)[..., None, :]
        buckets = torch.cat([own[:, None], past], 1)
        y = self._read_out(x_bd, self.levels.read(x_bd, q, buckets))
        return y, {"conv": conv, **self.levels.carry(buckets, state["position"])}
