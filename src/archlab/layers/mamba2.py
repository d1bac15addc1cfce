"""Mamba-2: a state-space model with one decay a head, which makes it linear attention with a matrix state."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Count
from archlab.layers.contract import LayerConfig, nearest_divisor
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention, scalar_decayed_linear_attention_flops
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.ops.step_size import step_size_bias
from archlab.layers.registry import register

NORM_EPS = 1e-5


@register("mamba-2")
@dataclass(frozen=True)
class Mamba2Config(LayerConfig):
    """Mamba-2 (arXiv 2405.21060, section 7.1), with one group of input and output maps.

    Knobs: ``d_state``, states of each channel; ``d_conv``, taps of the short convolution; ``expand``, inner width
    over width; ``headdim``, inner channels a head.
    """

    paper: ClassVar[str] = "arXiv 2405.21060"
    state_knob: ClassVar[str] = "d_state"

    d_state: Count = 8
    d_conv: Count = 4
    expand: Count = 2
    headdim: Count = 32

    @override
    def validate(self, dim: int) -> None:
        inner = self.expand * dim
        if inner % self.headdim:
            raise ArchlabError(
                f"{self.name}(headdim={self.headdim}): the inner width {inner} is not divisible by {self.headdim}; "
                f"the nearest that fits is headdim={nearest_divisor(inner, self.headdim)}"
            )

    def _sizes(self, dim: int) -> tuple[int, int, int]:
        """Inner width, heads and convolved channels."""
        inner = self.expand * dim
        return inner, inner // self.headdim, inner + 2 * self.d_state

    @override
    def num_params(self, dim: int, length: int) -> int:
        inner, heads, convolved = self._sizes(dim)
        return dim * (inner + convolved + heads) + convolved * (self.d_conv + 1) + 3 * heads + inner + inner * dim

    @override
    def matrix_state(self, dim: int, length: int) -> int:
        return self.expand * dim * self.d_state

    @override
    def state_size(self, dim: int, length: int) -> int:
        # The matrix of each head, and the inputs the convolution looks back on.
        return self.matrix_state(dim, length) + (self.d_conv - 1) * self._sizes(dim)[2]

    @override
    def flops(self, dim: int, length: int) -> int:
        inner, heads, convolved = self._sizes(dim)
        weights = dim * (2 * inner + convolved + heads) + self.d_conv * convolved
        head = self.d_state, self.headdim, length
        return 2 * length * weights + heads * scalar_decayed_linear_attention_flops(*head, chunk_size(*head))

    @override
    def build(self, dim: int, max_length: int) -> "Mamba2":
        self.validate(dim)
        return Mamba2(dim, self.expand * dim, self.headdim, self.d_state, self.d_conv)


class Mamba2(nn.Module):
    """``y_t = C_t S_t + D x_t`` with ``S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t`` for each head, ``A`` a scalar.

    ``x``, ``B`` and ``C`` pass a causal convolution and SiLU; all heads share ``B`` and ``C``. The output is
    ``W_out rms_norm(y * silu(z))``. Step sizes, decays and states are in at least float32.
    """

    def __init__(self, dim: int, inner: int, headdim: int, d_state: int, d_conv: int) -> None:
        """``-A`` starts uniform in [1, 16], step sizes log-uniform in [0.001, 0.1]."""
        super().__init__()
        self.heads = inner // headdim
        self.in_split = [inner, inner + 2 * d_state, self.heads]
        self.conv_split = [inner, d_state, d_state]
        self.in_proj = nn.Linear(dim, sum(self.in_split), bias=False)
        self.conv = ShortConv(sum(self.conv_split), d_conv)
        self.dt_bias = nn.Parameter(step_size_bias(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(inner, eps=NORM_EPS)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _heads(self, xbc: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Read-outs and input maps (..., H, N), inputs (..., H, P), step sizes (..., H, 1), log decays (..., H)."""
        x, b, c = torch.split(at_least_float32(F.silu(xbc)), self.conv_split, dim=-1)
        b, c = (t[..., None, :].expand(*t.shape[:-1], self.heads, -1) for t in (b, c))
        dt = F.softplus(at_least_float32(dt) + self.dt_bias)
        return c, b, x.view(*x.shape[:-1], self.heads, -1), dt[..., None], -self.A_log.exp() * dt

    def _read_out(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """Skip connection, gate, norm and last projection of the heads' outputs (..., H, P)."""
        y = (y + self.D[:, None] * x).flatten(-2)
        out: Tensor = self.out_proj(self.norm(y * F.silu(at_least_float32(z))).to(z.dtype))
        return out

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        z, xbc, dt = self.in_proj(x_bld).split(self.in_split, dim=-1)
        c, b, x, dt, log_decay = self._heads(self.conv(xbc), dt)
        with no_autocast(x_bld):
            y = scalar_decayed_linear_attention(c, b, dt * x, log_decay, chunk_size(b.shape[-1], x.shape[-1], x_bld.shape[1]))
        return self._read_out(y, x, z)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Zero matrices (B, H, N, P) and an empty convolution window (B, K - 1, C)."""
        inner, d_state, _ = self.conv_split
        matrix = self.A_log.new_zeros(batch_size, self.heads, d_state, inner // self.heads)
        return {"ssm": matrix, "conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token (B, D) and the state to the output (B, D) and the next state."""
        z, xbc, dt = self.in_proj(x_bd).split(self.in_split, dim=-1)
        xbc, conv = self.conv.step(xbc, state["conv"])
        c, b, x, dt, log_decay = self._heads(xbc, dt)
        ssm = log_decay.exp()[..., None, None] * state["ssm"] + b[..., None] * (dt * x)[..., None, :]
        return self._read_out((c[..., None] * ssm).sum(-2), x, z), {"ssm": ssm, "conv": conv}
