"""Mamba-3: a state space model with a trapezoidal rule and states that rotate, without a short convolution."""

import math
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
from archlab.layers.ops.rms_norm import RMSNorm
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention, scalar_decayed_linear_attention_flops
from archlab.layers.ops.step_size import step_size_bias
from archlab.layers.ops.token_shift import before
from archlab.layers.registry import register

NORM_EPS = 1e-5
LEAST_RATE = 1e-4


@register("mamba-3")
class Mamba3Config(LayerConfig):
    """Mamba-3 with single inputs and outputs (arXiv 2603.15569, section 3), with one group of input and output maps.

    Knobs: ``d_state``, states of each channel, of which the first half rotates in pairs; ``expand``, inner width over width;
    ``headdim``, inner channels a head.
    """

    paper: ClassVar[str] = "arXiv 2603.15569"
    state_knob: ClassVar[str] = "d_state"

    d_state: Count = 8
    expand: Count = 2
    headdim: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_state < 4:
            raise ArchlabError(f"mamba-3: d_state={self.d_state}: half of the states rotate in pairs; give at least 4")

    @override
    def validate(self, dim: int) -> None:
        inner = self.expand * dim
        if inner % self.headdim:
            raise ArchlabError(
                f"mamba-3(headdim={self.headdim}): the inner width {inner} is not divisible by {self.headdim}; "
                f"the nearest that fits is headdim={nearest_divisor(inner, self.headdim)}"
            )

    def _sizes(self, dim: int) -> tuple[int, int, int]:
        """Inner width, heads and angles."""
        inner = self.expand * dim
        return inner, inner // self.headdim, self.d_state // 4

    def _weights(self, dim: int) -> int:
        """Entries of the linear maps."""
        inner, heads, angles = self._sizes(dim)
        return dim * (3 * inner + 2 * self.d_state + 3 * heads + angles)

    def num_params(self, dim: int, length: int) -> int:
        heads = self._sizes(dim)[1]
        return self._weights(dim) + 2 * heads * (1 + self.d_state) + 2 * self.d_state

    def matrix_state(self, dim: int, length: int) -> int:
        return self.expand * dim * self.d_state

    def state_size(self, dim: int, length: int) -> int:
        # The matrix of each head, its angles, and the last key and value.
        inner, heads, angles = self._sizes(dim)
        return self.matrix_state(dim, length) + heads * (angles + self.d_state) + inner

    def flops(self, dim: int, length: int) -> int:
        head = self.d_state, self.headdim, length
        mixing = scalar_decayed_linear_attention_flops(*head, chunk_size(*head))
        return 2 * length * self._weights(dim) + self._sizes(dim)[1] * mixing

    def build(self, dim: int, max_length: int) -> "Mamba3":
        self.validate(dim)
        return Mamba3(dim, self.expand * dim, self.headdim, self.d_state)


class Mamba3(nn.Module):
    """``y_t = q_t S_t + D x_t`` with ``S_t = a_t S_{t-1} + dt_t ((1 - r_t) a_t k_{t-1} x_{t-1} + r_t k_t x_t)`` for each head.

    ``a = exp(-dt max(softplus(u_A), 1e-4))``, ``dt = softplus(u_dt + b)`` and ``r = sigmoid(u_r)`` depend on the token, and so
    do keys and queries: normalised, plus a bias for each head, rotated in pairs by ``sum_{s <= t} pi dt_s tanh(u_s)``, which
    is what complex decays come to. All heads share keys, queries and ``u`` before that. The output is ``W_out (y * silu(z))``.
    Angles, decays and states are in at least float32.
    """

    def __init__(self, dim: int, inner: int, headdim: int, d_state: int) -> None:
        """Step sizes start log-uniform in [0.001, 0.1], biases of keys and queries at 1."""
        super().__init__()
        self.heads, self.angles = inner // headdim, d_state // 4
        self.split = [inner, inner, d_state, d_state, self.heads, self.heads, self.heads, self.angles]
        self.in_proj = nn.Linear(dim, sum(self.split), bias=False)
        self.dt_bias = nn.Parameter(step_size_bias(self.heads))
        self.k_norm, self.q_norm = RMSNorm(d_state, eps=NORM_EPS), RMSNorm(d_state, eps=NORM_EPS)
        self.k_bias, self.q_bias = (nn.Parameter(torch.ones(self.heads, d_state)) for _ in range(2))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        for parameter in (self.dt_bias, self.D, self.k_bias, self.q_bias):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _project(self, u: Tensor) -> tuple[Tensor, ...]:
        """Gates and inputs (..., H, P), keys and queries (..., H, N) before their rotation, turns since the token before
        (..., H, angles), log decays, step sizes and ``r`` (..., H)."""
        z, x, k, q, dt, rate, r, turn = (at_least_float32(t) for t in self.in_proj(u).split(self.split, -1))
        z, x = (t.view(*t.shape[:-1], self.heads, -1) for t in (z, x))
        k, q = self.k_norm(k)[..., None, :] + self.k_bias, self.q_norm(q)[..., None, :] + self.q_bias
        dt = F.softplus(dt + self.dt_bias)
        turn = math.pi * turn.tanh()[..., None, :] * dt[..., None]
        return z, x, k, q, turn, -dt * F.softplus(rate).clamp(min=LEAST_RATE), dt, r.sigmoid()

    def _read_out(self, u: Tensor, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """Skip connection, gate and last projection of the heads' outputs (..., H, P)."""
        return self.out_proj(((y + self.D[:, None] * x) * F.silu(z)).flatten(-2).to(u.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        projected = self._project(x_bld)
        with no_autocast(x_bld):
            z, x, k, q, turn, log_decay, dt, r = projected
            angle = turn.double().cumsum(1).remainder(2 * math.pi).to(turn.dtype)
            k, q = _rotate(k, angle), _rotate(q, angle)
            # What a token brings to later ones is known at the next: its own share, and that which the next adds of it.
            brought = (before(dt * r) + dt * (1 - r)) * log_decay.exp()
            chunk = chunk_size(k.shape[-1], x.shape[-1], x_bld.shape[1])
            y = scalar_decayed_linear_attention(q, brought[..., None] * before(k), before(x), log_decay, chunk)
            y = y + (dt * r * (q * k).sum(-1))[..., None] * x
        return self._read_out(x_bld, y, x, z)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        zeros, headdim, d_state = self.D.new_zeros, self.split[0] // self.heads, self.split[2]
        shape = batch_size, self.heads
        sizes = {"ssm": (d_state, headdim), "angle": (self.angles,), "k": (d_state,), "x": (headdim,)}
        return {name: zeros(*shape, *size) for name, size in sizes.items()}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        z, x, k, q, turn, log_decay, dt, r = self._project(x_bd)
        angle = (state["angle"] + turn).remainder(2 * math.pi)
        k, q = _rotate(k, angle), _rotate(q, angle)
        kept = log_decay.exp()[..., None]
        last, own = kept * (dt * (1 - r))[..., None] * state["k"], (dt * r)[..., None] * k
        ssm = kept[..., None] * state["ssm"] + last[..., None] * state["x"][..., None, :] + own[..., None] * x[..., None, :]
        return self._read_out(x_bd, (q[..., None] * ssm).sum(-2), x, z), {"ssm": ssm, "angle": angle, "k": k, "x": x}


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    """``x`` (..., N) with its first channels turned in neighbouring pairs, each by its angle (..., pairs)."""
    turned, rest = torch.split(x, [2 * angle.shape[-1], x.shape[-1] - 2 * angle.shape[-1]], -1)
    even, odd = turned.reshape(*turned.shape[:-1], -1, 2).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2), rest], -1)
