"""Gated linear attention and HGRN2: a matrix state that forgets channel by channel, at a rate each token chooses."""

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.fields import Count, at_least, below
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.knobs import Factor
from archlab.layers.ops.decay import chunk_size, decayed_linear_attention, decayed_linear_attention_flops
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.rms_norm import RMSNorm
from archlab.layers.registry import register

NORM_EPS = 1e-5


@register("gated-linear-attention")
class GatedLinearAttentionConfig(LayerConfig):
    """Gated linear attention (arXiv 2312.06635, section 4.4) with one head.

    Knobs: ``heads``; ``expand_k`` and ``expand_v``, widths of keys and values over the layer's;
    ``gate_low_rank``, rank of the gate's projection; ``gate_logit_normalizer``, which divides the log gate.
    """

    paper: ClassVar[str] = "arXiv 2312.06635"
    state_knob: ClassVar[str] = "heads"

    heads: Count = 1
    expand_k: Factor = 1.0
    expand_v: Factor = 1.0
    gate_low_rank: Count = 16
    gate_logit_normalizer: Count = 16

    def validate(self, dim: int) -> None:
        for knob in ("expand_k", "expand_v"):
            expand = getattr(self, knob)
            channels = dim * expand / self.heads
            if channels < 1 or channels != int(channels):
                fit = max(1, round(channels)) * self.heads / dim
                raise ArchlabError(
                    f"{self.name}(heads={self.heads}, {knob}={expand}): width {dim} gives {channels:g} channels a head, "
                    f"which must be a whole number; {knob}={fit:g} fits"
                )

    def _widths(self, dim: int) -> tuple[int, int]:
        """Keys' and values' width, all heads together."""
        return int(dim * self.expand_k), int(dim * self.expand_v)

    def num_params(self, dim: int, length: int) -> int:
        keys, values = self._widths(dim)
        gate = self.gate_low_rank * (dim + keys) + keys
        return dim * (2 * keys + 3 * values) + gate + values // self.heads

    def state_size(self, dim: int, length: int) -> int:
        keys, values = self._widths(dim)
        return keys * values // self.heads

    def flops(self, dim: int, length: int) -> int:
        keys, values = self._widths(dim)
        projections = dim * (2 * keys + 3 * values) + self.gate_low_rank * (dim + keys)
        head = keys // self.heads, values // self.heads
        return 2 * length * projections + self.heads * decayed_linear_attention_flops(*head, length, chunk_size(*head, length))

    def build(self, dim: int, max_length: int) -> "GatedLinearAttention":
        self.validate(dim)
        return GatedLinearAttention(dim, self.heads, *self._widths(dim), self.gate_low_rank, self.gate_logit_normalizer)


@register("mh-gated-linear-attention")
class MultiHeadGatedLinearAttentionConfig(GatedLinearAttentionConfig):
    """:class:`GatedLinearAttentionConfig` with 8 heads."""

    heads: int = 8


@register("hgrn2")
class HGRN2Config(LayerConfig):
    """HGRN2 (arXiv 2404.07904): gated linear attention whose keys are what the gates forget.

    Knobs: ``expand_ratio``, channels a head, and so states for each channel of the width; ``lower_bound`` of the
    forget gates, in [0, 1): the paper's first layer has 0, later ones more.
    """

    paper: ClassVar[str] = "arXiv 2404.07904"
    state_knob: ClassVar[str] = "expand_ratio"

    expand_ratio: Divisor = 16
    lower_bound: Annotated[float, at_least(0), below(1)] = 0.0

    def num_params(self, dim: int, length: int) -> int:
        return 4 * dim * dim + dim

    def state_size(self, dim: int, length: int) -> int:
        return dim * self.expand_ratio

    def flops(self, dim: int, length: int) -> int:
        head = self.expand_ratio, self.expand_ratio, length
        mixing = dim // self.expand_ratio * decayed_linear_attention_flops(*head, chunk_size(*head))
        return 8 * length * dim * dim + mixing

    def build(self, dim: int, max_length: int) -> "HGRN2":
        self.validate(dim)
        return HGRN2(dim, self.expand_ratio, self.lower_bound)


class DecayingStates(nn.Module, ABC):
    """``o_t = q_t S_t`` with ``S_t = diag(a_t) S_{t-1} + k_t v_t`` for each head, in at least float32."""

    out_proj: nn.Linear

    def __init__(self, heads: int, keys: int, values: int) -> None:
        """Heads with ``keys`` channels of keys and ``values`` channels of values each."""
        super().__init__()
        self.heads, self.shape = heads, (heads, keys, values)

    @abstractmethod
    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled queries, keys, values and log decays, each (..., heads, width), in at least float32."""

    @abstractmethod
    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Norm, gate if there is one, and last projection of the heads' outputs (..., heads, width)."""

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, log_decay = self._project(x_bld)
        with no_autocast(x_bld):
            mixed = decayed_linear_attention(q, k, v, log_decay, chunk_size(q.shape[-1], v.shape[-1], x_bld.shape[1]))
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"kv": self.out_proj.weight.new_zeros(batch_size, *self.shape)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        q, k, v, log_decay = self._project(x_bd)
        kv = log_decay.exp()[..., None] * state["kv"] + k[..., None] * v[..., None, :]
        return self._read_out(x_bd, (q[..., None] * kv).sum(-2)), {"kv": kv}


class GatedLinearAttention(DecayingStates):
    """``o_t = q_t S_t / sqrt(K)`` with ``S_t = diag(a_t) S_{t-1} + k_t v_t`` and ``a_t = sigmoid(W2 W1 x_t + b)**(1/16)``.

    The output of each head goes through an RMS norm and the gate ``silu(W_g x_t)``, then a last projection. Decays
    and states are in at least float32.
    """

    def __init__(self, dim: int, heads: int, keys: int, values: int, gate_low_rank: int, gate_logit_normalizer: int) -> None:
        """``keys`` and ``values`` are widths over all ``heads``; projections start Xavier-uniform with gain 2 ** -2.5."""
        super().__init__(heads, keys // heads, values // heads)
        self.gate_logit_normalizer = gate_logit_normalizer
        self.q_proj, self.k_proj = nn.Linear(dim, keys, bias=False), nn.Linear(dim, keys, bias=False)
        self.v_proj, self.g_proj = nn.Linear(dim, values, bias=False), nn.Linear(dim, values, bias=False)
        self.decay_proj = nn.Sequential(nn.Linear(dim, gate_low_rank, bias=False), nn.Linear(gate_low_rank, keys))
        self.norm = RMSNorm(values // heads, eps=NORM_EPS)
        self.out_proj = nn.Linear(values, dim, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=2**-2.5)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        heads = (*x.shape[:-1], self.heads, -1)
        q, k, v, gate = (at_least_float32(p(x)).view(heads) for p in (self.q_proj, self.k_proj, self.v_proj, self.decay_proj))
        return q * q.shape[-1] ** -0.5, k, v, F.logsigmoid(gate) / self.gate_logit_normalizer

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        return self.out_proj(self.norm(mixed).flatten(-2).to(x.dtype) * F.silu(self.g_proj(x)))


class HGRN2(DecayingStates):
    """``o_t = silu(W_q x_t) S_t / sqrt(K)`` with ``S_t = diag(f_t) S_{t-1} + (1 - f_t) W_i x_t``.

    ``f_t = b + (1 - b) sigmoid(W_f x_t)`` with the lower bound ``b``. The outputs of all heads together go through an
    RMS norm and a last projection. Gates and states are in at least float32.
    """

    def __init__(self, dim: int, head_dim: int, lower_bound: float) -> None:
        super().__init__(dim // head_dim, head_dim, head_dim)
        self.head_dim = head_dim
        self.lower_bound = lower_bound
        self.q_proj, self.f_proj, self.i_proj, self.out_proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.norm = RMSNorm(dim, eps=NORM_EPS)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        projected = (at_least_float32(proj(x)) for proj in (self.q_proj, self.f_proj, self.i_proj))
        q, gate, v = (t.view(*x.shape[:-1], -1, self.head_dim) for t in projected)
        log_decay = F.logsigmoid(gate) + math.log1p(-self.lower_bound)
        if self.lower_bound:
            log_decay = torch.logaddexp(log_decay, torch.full_like(log_decay, math.log(self.lower_bound)))
        # 1 - f from the other side of the sigmoid: near f = 1 a difference would have no digits left.
        return F.silu(q) * self.head_dim**-0.5, (1 - self.lower_bound) * torch.sigmoid(-gate), v, log_decay

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        return self.out_proj(self.norm(mixed.flatten(-2)).to(x.dtype))
