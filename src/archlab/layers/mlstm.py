"""mLSTM of xLSTM: a matrix memory with exponential input gates, kept in range by a running maximum."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.contract import EvenDivisor, LayerConfig
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention, scalar_decayed_linear_attention_flops
from archlab.layers.registry import register

NORM_EPS = 1e-6
GATE_CAP = 15.0
"""Gate logits are bounded smoothly to this magnitude."""


@register("mlstm")
class MLSTMConfig(LayerConfig):
    """mLSTM (arXiv 2405.04517, section 2.3) in the block of xLSTM 7B (arXiv 2503.13427), without its MLP.

    Knob: ``heads``. Queries and keys are half as wide as values.
    """

    paper: ClassVar[str] = "arXiv 2405.04517, 2503.13427"
    state_knob: ClassVar[str] = "heads"

    heads: EvenDivisor = 4

    def _weights(self, dim: int) -> int:
        return 4 * dim * dim + 2 * dim * self.heads

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + 2 * self.heads + dim

    def matrix_state(self, dim: int, length: int) -> int:
        return dim * dim // (2 * self.heads)

    def state_size(self, dim: int, length: int) -> int:
        # Each head's matrix, sum of keys and running maximum.
        return self.matrix_state(dim, length) + dim // 2 + self.heads

    def flops(self, dim: int, length: int) -> int:
        keys, values = dim // self.heads // 2, dim // self.heads
        mixing = scalar_decayed_linear_attention_flops(keys, values + 1, length, chunk_size(keys, values, length))
        return 2 * length * self._weights(dim) + self.heads * mixing

    def build(self, dim: int, max_length: int) -> "MLSTM":
        self.validate(dim)
        return MLSTM(dim, self.heads)


class MLSTM(nn.Module):
    """``h_t = q_t C_t / max(|q_t . n_t|, 1)`` with ``C_t = f_t C_{t-1} + i_t k_t v_t`` and ``n_t = f_t n_{t-1} + i_t k_t``.

    For each head ``f_t = sigmoid(W_f x_t + b_f)`` and ``i_t = exp(W_i x_t + b_i)``, with the logits capped at 15. Every
    head's output goes through a layer norm, all are multiplied by ``sigmoid(W_o x_t)`` and projected.

    ``C`` and ``n`` are kept divided by ``exp(m_t)`` with ``m_t = max(log f_t + m_{t-1}, log i_t)``, so no decay and no
    input exceeds 1 (arXiv 2405.04517, section 2.3). Any ``m`` gives the same output, so none is differentiated. Gates
    and states are in at least float32.
    """

    def __init__(self, dim: int, heads: int) -> None:
        """Gates start independent of the token: input gates at exp(-10), forget gates at sigmoid(3) to sigmoid(6)."""
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim // 2, bias=False), nn.Linear(dim, dim // 2, bias=False)
        self.v_proj, self.o_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate_proj = nn.Linear(dim, 2 * heads, bias=False)
        nn.init.zeros_(self.gate_proj.weight)
        self.gate_bias = nn.Parameter(torch.cat([torch.full((heads,), -10.0), torch.linspace(3.0, 6.0, heads)]))
        self.gate_bias._reference_init = "linear"  # type: ignore[attr-defined]
        self.norm_weight = nn.Parameter(torch.ones(dim))
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values (..., H, width), logarithms of input and forget gates (..., H)."""
        projected = (at_least_float32(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (t.view(*x.shape[:-1], self.heads, -1) for t in projected)
        logits = at_least_float32(self.gate_proj(x)) + self.gate_bias
        log_i, logit_f = (GATE_CAP * torch.tanh(logits / GATE_CAP)).chunk(2, dim=-1)
        return q * q.shape[-1] ** -0.5, k, v, log_i, F.logsigmoid(logit_f)

    def _read_out(self, x: Tensor, read: Tensor, total: Tensor, m: Tensor) -> Tensor:
        """Normaliser, norm, gate and last projection of what is read of the state (..., H, V) and of the sum of keys."""
        h = read / torch.maximum(total.abs(), torch.exp(-m)[..., None])
        normed = F.layer_norm(h, h.shape[-1:], eps=NORM_EPS).flatten(-2) * self.norm_weight
        return self.out_proj(normed.to(x.dtype) * torch.sigmoid(self.o_proj(x)))

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        q, k, v, log_i, log_f = self._project(x_bld)
        with no_autocast(x_bld):
            m, change = _running_maximum(log_i.detach(), log_f.detach())
            k = k * torch.exp(log_i - m)[..., None]
            # The sum of keys is the state of one more channel, whose values are 1.
            values = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
            chunk = chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1])
            mixed = scalar_decayed_linear_attention(q, k, values, log_f - change, chunk)
        return self._read_out(x_bld, mixed[..., :-1], mixed[..., -1:], m)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Zero matrices (B, H, K, V), sums of keys (B, H, K) and running maxima (B, H)."""
        keys, values = len(self.q_proj.weight) // self.heads, len(self.v_proj.weight) // self.heads
        zeros = self.gate_bias.new_zeros
        shape = batch_size, self.heads
        return {"kv": zeros(*shape, keys, values), "k": zeros(*shape, keys), "m": zeros(*shape)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token (B, D) and the state to the output (B, D) and the next state."""
        q, k, v, log_i, log_f = self._project(x_bd)
        m = torch.maximum(log_f.detach() + state["m"], log_i.detach())
        kept = torch.exp(log_f + state["m"] - m)[..., None]
        k = k * torch.exp(log_i - m)[..., None]
        new = {"kv": kept[..., None] * state["kv"] + k[..., None] * v[..., None, :], "k": kept * state["k"] + k, "m": m}
        read, total = (q[..., None] * new["kv"]).sum(-2), (q * new["k"]).sum(-1, keepdim=True)
        return self._read_out(x_bd, read, total, m), new


def _running_maximum(log_i_blh: Tensor, log_f_blh: Tensor) -> tuple[Tensor, Tensor]:
    """``m[t] = max(log_f[t] + m[t-1], log_i[t])`` from ``m[-1] = 0``, and ``m[t] - m[t-1]``, each (B, L, H).

    In float64, for sums over the whole sequence.
    """
    kept = log_f_blh.double().cumsum(1)
    m = kept + (log_i_blh - kept).cummax(1).values.clamp(min=0)
    change = torch.diff(m, dim=1, prepend=torch.zeros_like(m[:, :1]))
    return m.to(log_i_blh.dtype), change.to(log_i_blh.dtype)
