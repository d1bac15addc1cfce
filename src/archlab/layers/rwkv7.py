"""RWKV-7: token shift, and a matrix state whose transition is a diagonal plus a rank-one matrix that each token chooses."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.delta_rule import delta_rule, delta_rule_flops
from archlab.layers.ops.head_norm import HeadNorm
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.token_shift import before
from archlab.layers.registry import register
from archlab.layers.rwkv5 import RWKV5ChannelMixerConfig, RWKV5Config, TokenShiftMixer, first_mixes

LEAST_LOG_DECAY = -math.exp(-0.5)
NORM_EPS = 64e-5


@register("rwkv-7")
class RWKV7Config(RWKV5Config):
    """RWKV-7 time mixing (arXiv 2503.14456, section 4.1) as in a model's first layer: values are not mixed with that layer's.

    Knob: ``heads``. Decays, in-context learning rates and gates are of low rank, as many times the root of the width
    as the authors' code takes, in multiples of 32.
    """

    paper: ClassVar[str] = "arXiv 2503.14456"

    def _ranks(self, dim: int) -> list[int]:
        """Ranks of decays, in-context learning rates and gates."""
        return [max(32, 32 * round(factor * math.sqrt(dim) / 32)) for factor in (2.5, 2.5, 5.0)]

    @override
    def _weights(self, dim: int) -> int:
        return 4 * dim * dim + 2 * dim * sum(self._ranks(dim))

    @override
    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + 13 * dim

    def flops(self, dim: int, length: int) -> int:
        width = dim // self.heads
        head = width, width, length, chunk_size(width, width, length)
        states = self.heads * delta_rule_flops(*head, width, beside=True, least_log_decay=LEAST_LOG_DECAY)
        return 2 * length * (self._weights(dim) + 6 * dim) + states

    def build(self, dim: int, max_length: int) -> "RWKV7":
        self.validate(dim)
        return RWKV7(dim, self.heads, *self._ranks(dim))


@register("rwkv-7-channel-mixer")
class RWKV7ChannelMixerConfig(RWKV5ChannelMixerConfig):
    """RWKV-7 channel mixing (arXiv 2503.14456, section 4.2): it looks back one token, so it counts as a sequence mixer.

    Knob: ``expand``, inner width over width.
    """

    paper: ClassVar[str] = "arXiv 2503.14456"

    def num_params(self, dim: int, length: int) -> int:
        return 2 * self.expand * dim * dim + dim

    def build(self, dim: int, max_length: int) -> "RWKV7ChannelMixer":
        return RWKV7ChannelMixer(dim, self.expand * dim)


class RWKV7(nn.Module):
    """``o_t = r_t S_t`` with ``S_t = diag(w_t) S_{t-1} + (a_t * kappa_t) (-kappa_t S_{t-1}) + k_t v_t``.

    ``r, k, v``, the decay ``w`` in [0.545, 1], the rate ``a`` and the gate ``g`` come from ``x_t + mu (x_{t-1} - x_t)``,
    each with its own ``mu``; ``kappa`` is the key scaled to unit length, ``k`` the key weakened where ``a`` is small.
    The heads' outputs go through a group norm, gain the current token's ``(r_t . rho k_t) v_t``, are multiplied by ``g``
    and projected. States are in at least float32.
    """

    def __init__(self, dim: int, heads: int, decay_rank: int, rate_rank: int, gate_rank: int) -> None:
        """Starts as the authors' code starts a first layer; the last projection starts at zero."""
        super().__init__()
        self.heads = heads
        self.r_proj, self.k_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.v_proj, self.out_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        bound = 0.5 * dim**-0.5
        for proj, scale in ((self.r_proj, bound), (self.k_proj, bound / 10), (self.v_proj, bound), (self.out_proj, 0.0)):
            nn.init.uniform_(proj.weight, -scale, scale)
        line = torch.linspace(-0.5, 0.5, dim)
        zigzag = torch.linspace(-1, 1, dim // heads).repeat(heads)
        zigzag = zigzag * zigzag.abs()
        self.mix = nn.Parameter(first_mixes(dim, 0.2, 0.9, 0.7, 0.7, 0.9, 0.2))
        self.decay_proj = _low_rank(dim, decay_rank, nn.Tanh(), 6 * line - 2.5 + 2.5 * zigzag)
        self.rate_proj = _low_rank(dim, rate_rank, nn.Identity(), 0.4 * line - 0.19 + 0.3 * zigzag)
        self.gate_proj = _low_rank(dim, gate_rank, nn.Sigmoid(), None)
        self.kappa_scale = nn.Parameter(0.71 - 0.1 * line)
        self.key_by_rate = nn.Parameter(torch.full((dim,), 1.02))
        self.bonus = nn.Parameter(torch.full((heads, dim // heads), -0.04))
        self.norm = HeadNorm(heads, dim, eps=NORM_EPS)
        decayed = {proj.weight for proj in (self.r_proj, self.k_proj, self.v_proj, self.out_proj)}
        for parameter in set(self.parameters()) - decayed:
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _project(self, x: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        """Receptances, log decays, keys, values, kappas and rates, each (..., heads, width), and gates (..., D)."""
        for_r, for_decay, for_k, for_v, for_rate, for_gate = (torch.addcmul(x, last - x, mix) for mix in self.mix)
        projected = (
            self.r_proj(for_r),
            self.decay_proj(for_decay),
            self.k_proj(for_k),
            self.v_proj(for_v),
            self.rate_proj(for_rate),
        )
        r, decay, k, v, rate = (at_least_float32(t) for t in projected)
        rate = rate.sigmoid()
        per_head = r, LEAST_LOG_DECAY * decay.sigmoid(), k * (1 + (rate - 1) * self.key_by_rate), v, k * self.kappa_scale, rate
        r, log_decay, k, v, kappa, rate = (t.view(*x.shape[:-1], self.heads, -1) for t in per_head)
        return r, log_decay, k, v, F.normalize(kappa, dim=-1), rate, self.gate_proj(for_gate)

    def _read_out(self, mixed: Tensor, r: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        """Norm, bonus of the current token, gate and last projection of the heads' outputs (..., heads, width)."""
        normed = self.norm(mixed) + (r * self.bonus * k).sum(-1, keepdim=True) * v
        return self.out_proj(normed.flatten(-2).to(gate.dtype) * gate)

    def forward(self, x_bld: Tensor) -> Tensor:
        r, log_decay, k, v, kappa, rate, gate = self._project(x_bld, before(x_bld))
        chunk = chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1])
        with no_autocast(x_bld):
            # kappa reads the state before it decays; what decays it here is divided out, no less than 0.545.
            reads, writes = -kappa * (-log_decay).exp(), rate * kappa
            mixed = delta_rule(r, reads, writes, log_decay, chunk, kv=(k, v), least_log_decay=LEAST_LOG_DECAY)
        return self._read_out(mixed, r, k, v, gate)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        zeros = self.mix.new_zeros
        return {"kv": zeros(batch_size, self.heads, *[self.bonus.shape[1]] * 2), "last": zeros(batch_size, self.mix.shape[1])}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        r, log_decay, k, v, kappa, rate, gate = self._project(x_bd, state["last"])
        removed = -(kappa[..., None] * state["kv"]).sum(-2, keepdim=True)
        kv = log_decay.exp()[..., None] * state["kv"] + (rate * kappa)[..., None] * removed + k[..., None] * v[..., None, :]
        return self._read_out((r[..., None] * kv).sum(-2), r, k, v, gate), {"kv": kv, "last": x_bd}


class RWKV7ChannelMixer(TokenShiftMixer):
    """``W2 relu(W1 (x_t + mu (x_{t-1} - x_t)))**2``."""

    def __init__(self, dim: int, inner: int) -> None:
        """Starts as the authors' code starts a first layer; the last projection starts at zero."""
        super().__init__()
        self.up, self.down = nn.Linear(dim, inner, bias=False), nn.Linear(inner, dim, bias=False)
        nn.init.uniform_(self.up.weight, -0.5 * dim**-0.5, 0.5 * dim**-0.5)
        nn.init.zeros_(self.down.weight)
        self.mix = nn.Parameter(first_mixes(dim, 1.0)[0])

    def _mix(self, x: Tensor, last: Tensor) -> Tensor:
        return self.down(F.relu(self.up(torch.addcmul(x, last - x, self.mix))).square())


def _low_rank(dim: int, rank: int, activation: nn.Module, bias: Tensor | None) -> nn.Sequential:
    """``W2 activation(W1 x) + bias`` with ``W1`` zero, so that it starts as the bias."""
    down, up = nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim, bias=bias is not None)
    nn.init.zeros_(down.weight)
    nn.init.orthogonal_(up.weight, gain=0.1)
    if bias is not None:
        up.bias = nn.Parameter(bias)
    for parameter in (*down.parameters(), *up.parameters()):
        parameter._reference_init = "own"  # type: ignore[attr-defined]
    return nn.Sequential(down, activation, up)
