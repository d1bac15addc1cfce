"""MesaNet: at every token, the linear map from keys to values that fits the past best, solved for exactly."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.delta_rule import unit_length
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.recursive_ridge import recursive_ridge, recursive_ridge_flops
from archlab.layers.ops.rms_norm import RMSNorm
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention, scalar_decayed_linear_attention_flops
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.ops.step_size import inverse_softplus
from archlab.layers.registry import register

NORM_EPS = 1e-5
LEAST_RIDGE, FIRST_RIDGE = 0.25, 1.0


@register("mesa-net")
class MesaNetConfig(LayerConfig):
    """MesaNet (arXiv 2506.05233, section 3): the least-squares form of linear attention, with a ridge and a decay.

    Knobs: ``heads``; ``d_conv``, taps of the short convolution over queries and keys.
    """

    paper: ClassVar[str] = "arXiv 2506.05233"
    state_knob: ClassVar[str] = "heads"

    heads: Divisor = 16
    d_conv: Count = 4

    def _weights(self, dim: int) -> int:
        return 4 * dim * dim + 2 * dim * self.heads

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + 2 * self.heads + 2 * self.d_conv * dim + dim + dim // self.heads

    def matrix_state(self, dim: int, length: int) -> int:
        return 2 * dim * dim // self.heads

    def state_size(self, dim: int, length: int) -> int:
        # Two matrices a head, and the inputs the convolution looks back on.
        return self.matrix_state(dim, length) + 2 * (self.d_conv - 1) * dim

    def flops(self, dim: int, length: int) -> int:
        width = dim // self.heads
        systems = recursive_ridge_flops(width, length)
        read_out = scalar_decayed_linear_attention_flops(width, width, length, chunk_size(width, width, length))
        return 2 * length * (self._weights(dim) + 2 * self.d_conv * dim) + self.heads * (systems + read_out)

    def build(self, dim: int, max_length: int) -> "MesaNet":
        self.validate(dim)
        return MesaNet(dim, self.heads, self.d_conv)


class MesaNet(nn.Module):
    """``o_t = x_t S_t`` with ``(K_t + diag(ridge)) x_t = q_t``.

    ``K_t = a_t K_{t-1} + b_t k_t k_t`` and ``S_t = a_t S_{t-1} + b_t k_t v_t``; ``a`` and ``b`` are sigmoids, one a head.
    Queries and keys pass a causal convolution and SiLU and are scaled to unit length, so the matrices are positive
    definite, and bounded by the length of the sequence. The output of each head goes through an RMS norm, then a last
    projection. Matrices are in at least float32.
    """

    def __init__(self, dim: int, heads: int, d_conv: int) -> None:
        """The ridge, a channel's own, is at least 0.25 and starts at 1."""
        super().__init__()
        self.heads = heads
        self.qk_proj, self.v_proj = nn.Linear(dim, 2 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.conv = ShortConv(2 * dim, d_conv, bias=False)
        self.decay_proj, self.rate_proj = nn.Linear(dim, heads), nn.Linear(dim, heads)
        above = torch.full((heads, dim // heads), FIRST_RIDGE - LEAST_RIDGE)
        self.ridge = nn.Parameter(inverse_softplus(above))
        self.ridge._no_weight_decay = True  # type: ignore[attr-defined]
        self.norm = RMSNorm(dim // heads, eps=NORM_EPS)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def _project(self, x: Tensor, qk: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values, log decays and rates, (..., heads, width or 1), of tokens and their convolved projection."""
        heads = (*x.shape[:-1], self.heads, -1)
        q, k = (unit_length(t.view(heads)) for t in at_least_float32(F.silu(qk)).chunk(2, -1))
        v, decay, rate = (at_least_float32(p(x)).view(heads) for p in (self.v_proj, self.decay_proj, self.rate_proj))
        return q, k, v, F.logsigmoid(decay), rate.sigmoid()

    def _ridge(self) -> Tensor:
        """Ridge that is added to the diagonals of the key matrices (heads, width)."""
        return F.softplus(self.ridge) + LEAST_RIDGE

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Norm and last projection of the heads' outputs (..., heads, width)."""
        return self.out_proj(self.norm(mixed).flatten(-2).to(x.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, log_decay, rate = self._project(x_bld, self.conv(self.qk_proj(x_bld)))
        with no_autocast(x_bld):
            written, chunk = rate * k, chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1])
            x_blhd = recursive_ridge(q, k, written, log_decay[..., 0], self._ridge(), chunk)
            mixed = scalar_decayed_linear_attention(x_blhd, written, v, log_decay[..., 0], chunk)
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        matrices = self.ridge.new_zeros(2, batch_size, self.heads, *[self.ridge.shape[1]] * 2)
        return {"kk": matrices[0], "kv": matrices[1], "conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        qk, conv = self.conv.step(self.qk_proj(x_bd), state["conv"])
        q, k, v, log_decay, rate = self._project(x_bd, qk)
        decay, written = log_decay.exp()[..., None], (rate * k)[..., None]
        kk, kv = decay * state["kk"] + written * k[..., None, :], decay * state["kv"] + written * v[..., None, :]
        read = torch.linalg.solve(kk + torch.diag_embed(self._ridge()), q)
        mixed = (read[..., None] * kv).sum(-2)
        return self._read_out(x_bd, mixed), {"kk": kk, "kv": kv, "conv": conv}
