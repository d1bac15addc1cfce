"""Mamba, a selective state-space model with a diagonal state, and Mamba-2, whose one decay a head makes it linear attention."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.fields import Count, Natural
from archlab.layers.contract import LayerConfig, nearest_divisor
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.rms_norm import RMSNorm
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention, scalar_decayed_linear_attention_flops
from archlab.layers.ops.selective_scan import selective_scan
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.ops.step_size import step_size_bias
from archlab.layers.registry import register

NORM_EPS = 1e-5


@register("mamba")
class MambaConfig(LayerConfig):
    """Mamba (arXiv 2312.00752, algorithm 2 and section 3.4): gated block around a selective scan.

    Knobs: ``d_state`` states per channel, ``d_conv`` taps of the short convolution, ``expand`` inner
    width over width, ``dt_rank`` rank of the step-size projection (0: a sixteenth of the width, rounded up).
    """

    paper: ClassVar[str] = "arXiv 2312.00752"
    state_knob: ClassVar[str] = "d_state"

    d_state: Count = 4
    d_conv: Count = 4
    expand: Count = 2
    dt_rank: Natural = 0

    def _sizes(self, dim: int) -> tuple[int, int]:
        """Inner width and rank of the step-size projection."""
        return self.expand * dim, self.dt_rank or math.ceil(dim / 16)

    def num_params(self, dim: int, length: int) -> int:
        inner, rank = self._sizes(dim)
        convolution = inner * (self.d_conv + 1)
        selection = inner * (rank + 2 * self.d_state) + (rank + 1) * inner
        return 3 * dim * inner + convolution + selection + inner * self.d_state + inner

    def matrix_state(self, dim: int, length: int) -> int:
        return self.expand * dim * self.d_state

    def state_size(self, dim: int, length: int) -> int:
        # The state-space states and the inputs the convolution looks back on.
        return self.matrix_state(dim, length) + self.expand * dim * (self.d_conv - 1)

    def flops(self, dim: int, length: int) -> int:
        inner, rank = self._sizes(dim)
        projections = 3 * dim * inner + inner * (rank + 2 * self.d_state) + rank * inner
        scan_and_readout = 2 * inner * self.d_state
        return 2 * length * (projections + self.d_conv * inner + scan_and_readout)

    def paper_flops(self, dim: int, length: int) -> float:
        inner, rank = self._sizes(dim)
        selection = 2 * length * inner * (rank + 2 * self.d_state) + 2 * length * rank * inner
        projections = 4.0 * length * dim * inner + 2 * length * dim * inner
        return projections + 2 * self.d_conv * length * inner + selection + 2 * length * inner * self.d_state

    def build(self, dim: int, max_length: int) -> "Mamba":
        inner, rank = self._sizes(dim)
        return Mamba(dim, inner, rank, self.d_state, self.d_conv)


@register("mamba-2")
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

    def num_params(self, dim: int, length: int) -> int:
        inner, heads, convolved = self._sizes(dim)
        return dim * (inner + convolved + heads) + convolved * (self.d_conv + 1) + 3 * heads + inner + inner * dim

    def matrix_state(self, dim: int, length: int) -> int:
        return self.expand * dim * self.d_state

    def state_size(self, dim: int, length: int) -> int:
        # The matrix of each head, and the inputs the convolution looks back on.
        return self.matrix_state(dim, length) + (self.d_conv - 1) * self._sizes(dim)[2]

    def flops(self, dim: int, length: int) -> int:
        inner, heads, convolved = self._sizes(dim)
        weights = dim * (2 * inner + convolved + heads) + self.d_conv * convolved
        head = self.d_state, self.headdim, length
        return 2 * length * weights + heads * scalar_decayed_linear_attention_flops(*head, chunk_size(*head))

    def build(self, dim: int, max_length: int) -> "Mamba2":
        self.validate(dim)
        return Mamba2(dim, self.expand * dim, self.headdim, self.d_state, self.d_conv)


class Mamba(nn.Module):
    """``y = W_out (scan(silu(conv(x))) * silu(z))`` with ``[x, z] = W_in u``.

    The scan is ``h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t``, ``y_t = C_t h_t + D x_t``; step size ``dt``, ``B`` and
    ``C`` depend on the token. It runs in at least float32.
    """

    def __init__(self, dim: int, inner: int, rank: int, d_state: int, d_conv: int) -> None:
        """``inner`` channels of ``d_state`` states each; step sizes start log-uniform in [0.001, 0.1]."""
        super().__init__()
        self.split = [rank, d_state, d_state]
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = ShortConv(inner, d_conv)
        self.x_proj = nn.Linear(inner, sum(self.split), bias=False)
        self.dt_proj = nn.Linear(rank, inner, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        self.dt_bias = nn.Parameter(step_size_bias(inner))
        self.dt_bias._reference_init = "auto-encoder"  # type: ignore[attr-defined]
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _selection(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step sizes (..., C), input maps (..., N) and read-outs (..., N) of the tokens ``x`` (..., C)."""
        low_rank, b, c = self.x_proj(x).split(self.split, dim=-1)
        # Laid out so that the weight's gradient is (rank, tokens) times (tokens, C), nine times faster than its transpose.
        dt = F.softplus(at_least_float32(low_rank @ self.dt_proj.weight.t().contiguous()) + self.dt_bias)
        return dt, b, c

    def forward(self, x_bld: Tensor) -> Tensor:
        x_lbd = x_bld.transpose(0, 1).contiguous()  # time first: a step of the scan and a lag of the convolution are in one piece
        x_lbc, z_lbc = (F.linear(x_lbd, weight) for weight in self.in_proj.weight.chunk(2))
        x_lbc = F.silu(self.conv(x_lbc.transpose(0, 1)).transpose(0, 1))
        dt_lbc, b_lbn, c_lbn = self._selection(x_lbc)
        with no_autocast(x_bld):
            x_lbc, b_lbn, c_lbn = (at_least_float32(t) for t in (x_lbc, b_lbn, c_lbn))
            y_lbc = selective_scan(x_lbc, dt_lbc, -self.A_log.exp().t(), b_lbn, c_lbn, self.D)
        return self.out_proj(y_lbc.to(z_lbc.dtype) * F.silu(z_lbc)).transpose(0, 1)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        inner, d_state = self.A_log.shape
        return {"ssm": self.A_log.new_zeros(batch_size, d_state, inner), "conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x_bc, z_bc = self.in_proj(x_bd).chunk(2, dim=-1)
        x_bc, conv = self.conv.step(x_bc, state["conv"])
        x_bc = F.silu(x_bc)
        dt_bc, b_bn, c_bn = self._selection(x_bc)
        decay_bnc = torch.exp(dt_bc[:, None] * -self.A_log.exp().t())
        ssm_bnc = decay_bnc * state["ssm"] + (dt_bc * x_bc)[:, None] * b_bn[..., None]
        y_bc = (c_bn[..., None] * ssm_bnc).sum(1) + self.D * x_bc
        return self.out_proj(y_bc * F.silu(z_bc)), {"ssm": ssm_bnc, "conv": conv}


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
        self.norm = RMSNorm(inner, eps=NORM_EPS)
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
        return self.out_proj(self.norm(y * F.silu(at_least_float32(z))).to(z.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        z, xbc, dt = self.in_proj(x_bld).split(self.in_split, dim=-1)
        c, b, x, dt, log_decay = self._heads(self.conv(xbc), dt)
        with no_autocast(x_bld):
            y = scalar_decayed_linear_attention(c, b, dt * x, log_decay, chunk_size(b.shape[-1], x.shape[-1], x_bld.shape[1]))
        return self._read_out(y, x, z)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        inner, d_state, _ = self.conv_split
        matrix = self.A_log.new_zeros(batch_size, self.heads, d_state, inner // self.heads)
        return {"ssm": matrix, "conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        z, xbc, dt = self.in_proj(x_bd).split(self.in_split, dim=-1)
        xbc, conv = self.conv.step(xbc, state["conv"])
        c, b, x, dt, log_decay = self._heads(xbc, dt)
        ssm = log_decay.exp()[..., None, None] * state["ssm"] + b[..., None] * (dt * x)[..., None, :]
        return self._read_out((c[..., None] * ssm).sum(-2), x, z), {"ssm": ssm, "conv": conv}
