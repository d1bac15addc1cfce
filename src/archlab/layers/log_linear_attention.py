"""Log-linear attention: Mamba-2 with a state for each bucket of a past that is kept in buckets of growing size."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.base import register
from archlab.layers.mamba2 import Mamba2, Mamba2Config
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.fenwick import fenwick_linear_attention, fenwick_linear_attention_flops, num_levels
from archlab.layers.ops.precision import at_least_float32, no_autocast


@register("log-linear-attention")
@dataclass(frozen=True)
class LogLinearAttentionConfig(Mamba2Config):
    """Log-linear Mamba-2 (arXiv 2506.04761): states for the last 1, 2, 4, ... tokens, weighed by the token that reads.

    Knobs: as :class:`archlab.layers.mamba2.Mamba2Config`. The number of states, and with it that of the parameters,
    grows with the logarithm of the length.
    """

    paper: ClassVar[str] = "arXiv 2506.04761"

    def num_params(self, dim: int, length: int) -> int:
        """Of these more than Mamba-2: each head's and level's weight, and the map that moves it."""
        _, heads, _ = self._sizes(dim)
        return super().num_params(dim, length) + (dim + 1) * heads * num_levels(length)

    def matrix_state(self, dim: int, length: int) -> int:
        """See :meth:`LayerConfig.matrix_state`: as Mamba-2, with a matrix for every level but the token itself."""
        return (num_levels(length) - 1) * super().matrix_state(dim, length)

    def flops(self, dim: int, length: int) -> int:
        """See :meth:`LayerConfig.flops`: projections, convolution, and what is read of the states."""
        inner, heads, convolved = self._sizes(dim)
        weights = dim * (2 * inner + convolved + heads * (1 + num_levels(length))) + self.d_conv * convolved
        head = self.d_state, self.headdim, length
        return 2 * length * weights + heads * fenwick_linear_attention_flops(*head, chunk_size(*head))

    def build(self, dim: int, max_length: int) -> "LogLinearAttention":
        """See :meth:`LayerConfig.build`."""
        self.validate(dim)
        return LogLinearAttention(dim, self.expand * dim, self.headdim, self.d_state, self.d_conv, num_levels(max_length))


class LogLinearAttention(Mamba2):
    """``y_t = sum over levels e of w_te C_t S_te + D x_t`` with ``w_te = softplus(l_e (W_l u_t)_e)`` for each head.

    The past of a token lies in buckets, one for each binary 1 of its position, from 0, the nearest the smallest. Bucket
    ``e`` holds ``2**(e-1)`` tokens, bucket 0 the token itself; its state ``S_te`` is that of
    :class:`archlab.layers.mamba2.Mamba2` after these tokens alone, decayed since. With all weights 1 the layer is Mamba-2.

    Any length is taken. Beyond the maximum length the largest bucket takes in what overflows.
    """

    def __init__(self, dim: int, inner: int, headdim: int, d_state: int, d_conv: int, levels: int) -> None:
        """All ``l_e`` start at 1."""
        super().__init__(dim, inner, headdim, d_state, d_conv)
        self.levels = levels
        self.level_proj = nn.Linear(dim, self.heads * levels, bias=False)
        self.level_weight = nn.Parameter(torch.ones(self.heads, levels))
        self.level_weight._no_weight_decay = True  # type: ignore[attr-defined]

    def _level_weights(self, x: Tensor) -> Tensor:
        """(..., H, E), of the tokens ``x`` (..., D)."""
        moved = at_least_float32(self.level_proj(x)).view(*x.shape[:-1], self.heads, self.levels)
        return F.softplus(self.level_weight * moved)

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        z, xbc, dt = self.in_proj(x_bld).split(self.in_split, dim=-1)
        c, b, x, dt, log_decay = self._heads(self.conv(xbc), dt)
        weights = self._level_weights(x_bld)
        with no_autocast(x_bld):
            chunk = chunk_size(b.shape[-1], x.shape[-1], x_bld.shape[1])
            y = fenwick_linear_attention(c, b, dt * x, log_decay, weights, chunk)
        return self._read_out(y, x, z)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Zero matrices (B, E - 1, H, N, P), an empty convolution window (B, K - 1, C), and the position (B)."""
        state = super().init_state(batch_size)
        matrices = state["ssm"][:, None].repeat(1, self.levels - 1, 1, 1, 1)
        position = torch.zeros(batch_size, dtype=torch.int64, device=matrices.device)
        return {"ssm": matrices, "conv": state["conv"], "position": position}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token: see :class:`archlab.layers.Recurrent`."""
        z, xbc, dt = self.in_proj(x_bd).split(self.in_split, dim=-1)
        xbc, conv = self.conv.step(xbc, state["conv"])
        c, b, x, dt, log_decay = self._heads(xbc, dt)
        own = b[..., None] * (dt * x)[..., None, :]
        buckets_behnp = torch.cat([own[:, None], log_decay.exp()[:, None, :, None, None] * state["ssm"]], 1)
        y = torch.einsum("bhn,bhe,behnp->bhp", c, self._level_weights(x_bd), buckets_behnp)
        position = state["position"] + 1
        return self._read_out(y, x, z), {"ssm": _carried(buckets_behnp, position), "conv": conv, "position": position}


def _carried(buckets_behnp: Tensor, position_b: Tensor) -> Tensor:
    """The buckets (B, E - 1, H, N, P) as the token at ``position`` finds them: merged as adding 1 in binary carries.

    The bucket at the lowest binary 1 of the position takes in all smaller ones.
    """
    level = torch.arange(buckets_behnp.shape[1], device=position_b.device)
    lowest_b1 = (position_b[:, None] % 2 ** level[:-1] == 0).sum(1, keepdim=True)
    emptied, merged = (at[..., None, None, None] for at in (level < lowest_b1, level == lowest_b1))
    carried = torch.where(merged, buckets_behnp.cumsum(1), buckets_behnp.masked_fill(emptied, 0))
    return carried[:, 1:]
