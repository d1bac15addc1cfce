"""Gated slot attention: softmax attention over a fixed number of slots, each a decaying memory of keys and values."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.decay import (
    chunk_size,
    decayed_linear_attention,
    decayed_linear_attention_flops,
    value_decayed_linear_attention,
)
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.rms_norm import RMSNorm
from archlab.layers.registry import register

NORM_EPS = 1e-5


@register("gsa")
class GSAConfig(LayerConfig):
    """Gated slot attention (arXiv 2409.07146).

    Knobs: ``heads``; ``num_slots`` a head; ``gate_logit_normalizer``, which divides the log gate.
    """

    paper: ClassVar[str] = "arXiv 2409.07146"
    state_knob: ClassVar[str] = "num_slots"

    heads: Divisor = 4
    num_slots: Count = 8
    gate_logit_normalizer: Count = 8

    def _weights(self, dim: int) -> int:
        return 4 * dim * dim + dim * self.heads * self.num_slots

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + dim

    def state_size(self, dim: int, length: int) -> int:
        return 2 * dim * self.num_slots

    def flops(self, dim: int, length: int) -> int:
        head = dim // self.heads, self.num_slots, length
        one_pass = decayed_linear_attention_flops(*head, chunk_size(*head))
        return 2 * length * self._weights(dim) + 2 * self.heads * one_pass

    def build(self, dim: int, max_length: int) -> "GSA":
        self.validate(dim)
        return GSA(dim, self.heads, self.num_slots, self.gate_logit_normalizer)


class GSA(nn.Module):
    """``o_t = softmax(q_t K_t) V_t`` over slots that keep ``a_t`` of keys and values and take ``1 - a_t`` of the token's.

    ``K_t = K_{t-1} diag(a_t) + k_t (1 - a_t)`` and ``V_t = diag(a_t) V_{t-1} + (1 - a_t) v_t``, with one decay
    ``a_t = sigmoid(W_a x_t)**(1/8)`` a slot; queries, keys and values pass SiLU. SiLU of the outputs of all heads goes
    through an RMS norm and a last projection. Decays, scores and states are in at least float32.
    """

    def __init__(self, dim: int, heads: int, num_slots: int, gate_logit_normalizer: int) -> None:
        super().__init__()
        self.heads = heads
        self.num_slots = num_slots
        self.gate_logit_normalizer = gate_logit_normalizer
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.decay_proj = nn.Linear(dim, heads * num_slots, bias=False)
        self.norm = RMSNorm(dim, eps=NORM_EPS)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values, what slots take and their log decays, each (..., heads, width), in at least float32."""
        q, k, v = (F.silu(at_least_float32(proj(x))) for proj in (self.q_proj, self.k_proj, self.v_proj))
        log_decay = F.logsigmoid(at_least_float32(self.decay_proj(x))) / self.gate_logit_normalizer
        q, k, v, taken, log_decay = (t.view(*x.shape[:-1], self.heads, -1) for t in (q, k, v, -torch.expm1(log_decay), log_decay))
        return q, k, v, taken, log_decay

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Activation, norm and last projection of the heads' outputs (..., heads, width)."""
        return self.out_proj(self.norm(F.silu(mixed).flatten(-2)).to(x.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, taken, log_decay = self._project(x_bld)
        chunk = chunk_size(k.shape[-1], self.num_slots, x_bld.shape[1])
        with no_autocast(x_bld):
            scores = value_decayed_linear_attention(q, k, taken, log_decay, chunk)
            mixed = decayed_linear_attention(scores.softmax(-1), taken, v, log_decay, chunk)
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Keys (B, heads, width, slots) and values (B, heads, slots, width) of empty slots."""
        weight = self.q_proj.weight
        keys = weight.new_zeros(batch_size, self.heads, len(weight) // self.heads, self.num_slots)
        return {"k": keys, "v": keys.transpose(2, 3).clone()}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        q, k, v, taken, log_decay = self._project(x_bd)
        decay = log_decay.exp()
        keys = state["k"] * decay[..., None, :] + k[..., None] * taken[..., None, :]
        values = state["v"] * decay[..., None] + taken[..., None] * v[..., None, :]
        weights = (q[..., None] * keys).sum(-2).softmax(-1)
        return self._read_out(x_bd, (weights[..., None] * values).sum(-2)), {"k": keys, "v": values}
