"""Mamba: a selective state-space model with a diagonal state."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.fields import Count, Natural
from archlab.layers.contract import LayerConfig
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.selective_scan import selective_scan
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.ops.step_size import step_size_bias
from archlab.layers.registry import register


@register("mamba")
@dataclass(frozen=True)
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

    @override
    def num_params(self, dim: int, length: int) -> int:
        inner, rank = self._sizes(dim)
        convolution = inner * (self.d_conv + 1)
        selection = inner * (rank + 2 * self.d_state) + (rank + 1) * inner
        return 3 * dim * inner + convolution + selection + inner * self.d_state + inner

    @override
    def matrix_state(self, dim: int, length: int) -> int:
        return self.expand * dim * self.d_state

    @override
    def state_size(self, dim: int, length: int) -> int:
        # The state-space states and the inputs the convolution looks back on.
        return self.matrix_state(dim, length) + self.expand * dim * (self.d_conv - 1)

    @override
    def flops(self, dim: int, length: int) -> int:
        inner, rank = self._sizes(dim)
        projections = 3 * dim * inner + inner * (rank + 2 * self.d_state) + rank * inner
        scan_and_readout = 2 * inner * self.d_state
        return 2 * length * (projections + self.d_conv * inner + scan_and_readout)

    @override
    def paper_flops(self, dim: int, length: int) -> float:
        inner, rank = self._sizes(dim)
        selection = 2 * length * inner * (rank + 2 * self.d_state) + 2 * length * rank * inner
        projections = 4.0 * length * dim * inner + 2 * length * dim * inner
        return projections + 2 * self.d_conv * length * inner + selection + 2 * length * inner * self.d_state

    @override
    def build(self, dim: int, max_length: int) -> "Mamba":
        inner, rank = self._sizes(dim)
        return Mamba(dim, inner, rank, self.d_state, self.d_conv)


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
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _selection(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step sizes (..., C), input maps (..., N) and read-outs (..., N) of the tokens ``x`` (..., C)."""
        low_rank, b, c = self.x_proj(x).split(self.split, dim=-1)
        dt = F.softplus(at_least_float32(self.dt_proj(low_rank)) + self.dt_bias)
        return dt, b, c

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        x_blc, z_blc = self.in_proj(x_bld).chunk(2, dim=-1)
        x_blc = F.silu(self.conv(x_blc))
        dt_blc, b_bln, c_bln = self._selection(x_blc)
        with no_autocast(x_bld):
            x_lbc, dt_lbc, b_lbn, c_lbn = (at_least_float32(t).transpose(0, 1) for t in (x_blc, dt_blc, b_bln, c_bln))
            y_lbc = selective_scan(x_lbc, dt_lbc, -self.A_log.exp().t(), b_lbn, c_lbn) + self.D * x_lbc
        out: Tensor = self.out_proj(y_lbc.transpose(0, 1).to(z_blc.dtype) * F.silu(z_blc))
        return out

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Zero states (B, N, C) and an empty convolution window (B, K - 1, C)."""
        inner, d_state = self.A_log.shape
        return {"ssm": self.A_log.new_zeros(batch_size, d_state, inner), "conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token (B, D) and the state to the output (B, D) and the next state."""
        x_bc, z_bc = self.in_proj(x_bd).chunk(2, dim=-1)
        x_bc, conv = self.conv.step(x_bc, state["conv"])
        x_bc = F.silu(x_bc)
        dt_bc, b_bn, c_bn = self._selection(x_bc)
        decay_bnc = torch.exp(dt_bc[:, None] * -self.A_log.exp().t())
        ssm_bnc = decay_bnc * state["ssm"] + (dt_bc * x_bc)[:, None] * b_bn[..., None]
        y_bc = (c_bn[..., None] * ssm_bnc).sum(1) + self.D * x_bc
        return self.out_proj(y_bc * F.silu(z_bc)), {"ssm": ssm_bnc, "conv": conv}
