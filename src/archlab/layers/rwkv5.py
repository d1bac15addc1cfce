"""RWKV-5 (Eagle) and RWKV-6 (Finch): token shift, and a matrix state whose channels decay, at rates that tokens may choose."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Count
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.decay import chunk_size, decayed_linear_attention, decayed_linear_attention_flops
from archlab.layers.ops.head_norm import HeadNorm
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.token_shift import before
from archlab.layers.registry import register

NORM_EPS = 64e-5
"""Epsilon of the group norm, whose input the authors' code divides by 8 under an epsilon of 1e-5."""
MIX_RANK, DECAY_RANK = 32, 64


@register("rwkv-5")
class RWKV5Config(LayerConfig):
    """RWKV-5 time mixing (arXiv 2404.05892) with the gate of its released models.

    Knob: ``heads``.
    """

    paper: ClassVar[str] = "arXiv 2404.05892"
    state_knob: ClassVar[str] = "heads"

    heads: Divisor = 8

    def validate(self, dim: int) -> None:
        # A norm would leave a head of one channel at zero.
        super().validate(dim)
        if dim == self.heads:
            raise ArchlabError(
                f"{self.name}(heads={self.heads}): a head needs at least 2 channels, width {dim} leaves it 1; use fewer heads"
            )

    def _weights(self, dim: int) -> int:
        return 5 * dim * dim

    def _mixes(self) -> int:
        """Mixes of a token with the one before."""
        return 4

    @override
    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + (self._mixes() + 4) * dim

    def matrix_state(self, dim: int, length: int) -> int:
        return dim * dim // self.heads

    def state_size(self, dim: int, length: int) -> int:
        # The matrix of each head, and the last token.
        return self.matrix_state(dim, length) + dim

    def flops(self, dim: int, length: int) -> int:
        width = dim // self.heads
        head = width, width, length, chunk_size(width, width, length)
        return 2 * length * (self._weights(dim) + self._mixes() * dim) + self.heads * decayed_linear_attention_flops(*head)

    def build(self, dim: int, max_length: int) -> nn.Module:
        self.validate(dim)
        return RWKV5(dim, self.heads)


@register("rwkv-5-channel-mixer")
class RWKV5ChannelMixerConfig(LayerConfig):
    """RWKV-5 channel mixing (arXiv 2404.05892): it looks back one token, so it counts as a sequence mixer.

    Knob: ``expand``, inner width over width.
    """

    paper: ClassVar[str] = "arXiv 2404.05892"

    expand: Count = 4

    def num_params(self, dim: int, length: int) -> int:
        return (2 * self.expand + 1) * dim * dim + 2 * dim

    def matrix_state(self, dim: int, length: int) -> int:
        # The last token is no memory.
        return 0

    def state_size(self, dim: int, length: int) -> int:
        return dim

    def resized(self, dim: int, factor: float) -> LayerConfig:
        return replace(self, expand=max(1, round(factor * self.expand)))

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * self.num_params(dim, length)

    def build(self, dim: int, max_length: int) -> nn.Module:
        return RWKV5ChannelMixer(dim, self.expand * dim)


@register("rwkv-6")
class RWKV6Config(RWKV5Config):
    """RWKV-6 time mixing (arXiv 2404.05892), ranks of 32 for the mixes and 64 for the decays.

    Knob: ``heads``.
    """

    @override
    def _weights(self, dim: int) -> int:
        # Adds five mixes and the decays, of low rank.
        return super()._weights(dim) + 2 * dim * (5 * MIX_RANK + DECAY_RANK)

    @override
    def _mixes(self) -> int:
        # Adds that of the decays, and that from which the other five are computed.
        return super()._mixes() + 2

    def build(self, dim: int, max_length: int) -> "RWKV6":
        self.validate(dim)
        return RWKV6(dim, self.heads)


@register("rwkv-6-channel-mixer")
class RWKV6ChannelMixerConfig(RWKV5ChannelMixerConfig):
    """RWKV-6 channel mixing (arXiv 2404.05892), which is that of RWKV-5.

    Knob: ``expand``, inner width over width.
    """


class RWKV5(nn.Module):
    """``o_t = r_t (S_{t-1} + diag(u) k_t v_t)`` with ``S_t = diag(exp(-exp(w))) S_{t-1} + k_t v_t``.

    ``r, k, v`` and the gate ``g`` come from ``x_t + mu (x_{t-1} - x_t)``, each with its own ``mu``. The heads' outputs
    go through a group norm, are multiplied by ``silu(g)`` and projected. States are in at least float32.
    """

    def __init__(self, dim: int, heads: int) -> None:
        """Starts as the authors' code starts a model's first layer."""
        super().__init__()
        self.heads = heads
        self.r_proj, self.k_proj, self.v_proj, self.g_proj, self.out_proj = (nn.Linear(dim, dim, bias=False) for _ in range(5))
        self.mix = nn.Parameter(first_mixes(dim, 0.5, 1.0, 1.0, 0.5))
        channel = torch.arange(dim)
        self.log_rate = nn.Parameter(-6 + 5 * (channel / (dim - 1)) ** 0.7)
        self.bonus = nn.Parameter((0.1 * ((channel + 1) % 3 - 1)).view(heads, -1))
        self.norm = HeadNorm(heads, dim, eps=NORM_EPS)
        for parameter in (self.mix, self.log_rate, self.bonus):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _mixed(self, x: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        """Inputs of receptance, key, value and gate (..., D), mixed from a token and the one before, and log rates of decays."""
        return *(torch.addcmul(x, last - x, mix) for mix in self.mix), self.log_rate

    def _project(self, x: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        """Receptances, keys, values and log decays, each (..., heads, width), and gates (..., D)."""
        for_r, for_k, for_v, for_g, log_rate = self._mixed(x, last)
        # A rate above exp(9) forgets all; bounded, its gradient cannot overflow.
        log_decay = -log_rate.clamp(max=9.0).exp().expand_as(x)
        r, k, v = (at_least_float32(t) for t in (self.r_proj(for_r), self.k_proj(for_k), self.v_proj(for_v)))
        r, k, v, log_decay = (t.view(*x.shape[:-1], self.heads, -1) for t in (r, k, v, log_decay))
        return r, k, v, log_decay, F.silu(self.g_proj(for_g))

    def _read_out(self, mixed: Tensor, gate: Tensor) -> Tensor:
        """Norm, gate and last projection of the heads' outputs (..., heads, width)."""
        return self.out_proj(self.norm(mixed).flatten(-2).to(gate.dtype) * gate)

    def _bonus(self, r: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Values that a token reads of itself (..., heads, width)."""
        return (r * self.bonus * k).sum(-1, keepdim=True) * v

    def forward(self, x_bld: Tensor) -> Tensor:
        r, k, v, log_decay, gate = self._project(x_bld, before(x_bld))
        chunk = chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1])
        with no_autocast(x_bld):
            # A token reads the state as the one before left it, undecayed: all that was written moves on by one.
            mixed = decayed_linear_attention(r, before(k), before(v), before(log_decay), chunk) + self._bonus(r, k, v)
        return self._read_out(mixed, gate)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        zeros = self.mix.new_zeros
        return {"kv": zeros(batch_size, self.heads, *[self.bonus.shape[1]] * 2), "last": zeros(batch_size, self.mix.shape[1])}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        r, k, v, log_decay, gate = self._project(x_bd, state["last"])
        mixed = (r[..., None] * state["kv"]).sum(-2) + self._bonus(r, k, v)
        kv = log_decay.exp()[..., None] * state["kv"] + k[..., None] * v[..., None, :]
        return self._read_out(mixed, gate), {"kv": kv, "last": x_bd}


class RWKV6(RWKV5):
    """:class:`RWKV5` with ``w_t = w + tanh(d_t W1) W2`` and, for each of ``r, k, v, g, d``, ``mu_t = mu + tanh(z_t V1) V2``.

    ``d_t`` and ``z_t`` are mixes of a token with the one before, as the others are; that of ``z_t`` is fixed.
    """

    def __init__(self, dim: int, heads: int) -> None:
        """Matrices of low rank start uniform in [-1e-4, 1e-4]."""
        super().__init__(dim, heads)
        self.mix = nn.Parameter(first_mixes(dim, 0.5, 1.0, 1.0, 0.5, 1.0))
        self.mix_of_mixes = nn.Parameter(first_mixes(dim, 1.0)[0])
        shapes = (dim, 5 * MIX_RANK), (5, MIX_RANK, dim), (dim, DECAY_RANK), (DECAY_RANK, dim)
        self.mix_down, self.mix_up, self.decay_down, self.decay_up = (
            nn.Parameter(torch.empty(shape).uniform_(-1e-4, 1e-4)) for shape in shapes
        )
        for parameter in (self.mix, self.mix_of_mixes, self.mix_down, self.mix_up, self.decay_down, self.decay_up):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    @override
    def _mixed(self, x: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        change = last - x
        low_rank = torch.tanh(torch.addcmul(x, change, self.mix_of_mixes) @ self.mix_down)
        chosen = low_rank.view(-1, 5, MIX_RANK).transpose(0, 1) @ self.mix_up
        mixes = (chosen + self.mix[:, None]).view(5, *x.shape)
        *others, for_decay = (torch.addcmul(x, change, mix) for mix in mixes)
        return *others, self.log_rate + torch.tanh(for_decay @ self.decay_down) @ self.decay_up


class TokenShiftMixer(nn.Module, ABC):
    """Computes from a token and the one before it; ``mix`` are the weights of the latter, (..., D)."""

    mix: nn.Parameter

    @abstractmethod
    def _mix(self, x: Tensor, last: Tensor) -> Tensor:
        """The output (..., D) for tokens (..., D) and those before them."""

    def forward(self, x_bld: Tensor) -> Tensor:
        return self._mix(x_bld, before(x_bld))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"last": self.mix.new_zeros(batch_size, self.mix.shape[-1])}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self._mix(x_bd, state["last"]), {"last": x_bd}


class RWKV5ChannelMixer(TokenShiftMixer):
    """``sigmoid(W_r r) * W_v relu(W_k k)**2``, where ``r`` and ``k`` are ``x_t + mu (x_{t-1} - x_t)``, each with its ``mu``."""

    def __init__(self, dim: int, inner: int) -> None:
        """Mixes start as the authors' code starts a model's first layer."""
        super().__init__()
        self.r_proj, self.k_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, inner, bias=False)
        self.v_proj = nn.Linear(inner, dim, bias=False)
        self.mix = nn.Parameter(first_mixes(dim, 1.0, 1.0))
        self.mix._no_weight_decay = True  # type: ignore[attr-defined]

    def _mix(self, x: Tensor, last: Tensor) -> Tensor:
        for_r, for_k = (torch.addcmul(x, last - x, mix) for mix in self.mix)
        return self.r_proj(for_r).sigmoid() * self.v_proj(F.relu(self.k_proj(for_k)).square())


def first_mixes(dim: int, *exponents: float) -> Tensor:
    """Weights of the token before, ``1 - (channel / dim) ** exponent``: (exponents, dim)."""
    return 1 - (torch.arange(dim) / dim) ** torch.tensor(exponents)[:, None]
