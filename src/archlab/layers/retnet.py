"""Multi-scale retention: a matrix state for each head that decays at the head's own, fixed rate."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import EvenDivisor, LayerConfig
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.rotary import rotate
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention, scalar_decayed_linear_attention_flops
from archlab.layers.registry import register

NORM_EPS = 1e-5


@register("retnet")
class RetNetConfig(LayerConfig):
    """Multi-scale retention (arXiv 2307.08621, section 2.2), with rotary positions.

    Knobs: ``heads``, of which head ``h`` keeps ``1 - 2**(-5 - h)`` of its state at every token; ``expand_v``, width of
    values over the layer's.
    """

    paper: ClassVar[str] = "arXiv 2307.08621"
    state_knob: ClassVar[str] = "heads"

    heads: EvenDivisor = 16
    expand_v: Count = 2

    def num_params(self, dim: int, length: int) -> int:
        return (2 + 3 * self.expand_v) * dim * dim

    def state_size(self, dim: int, length: int) -> int:
        return self.expand_v * dim * dim // self.heads

    def flops(self, dim: int, length: int) -> int:
        head = dim // self.heads, self.expand_v * dim // self.heads, length
        mixing = self.heads * scalar_decayed_linear_attention_flops(*head, chunk_size(*head))
        return 2 * length * self.num_params(dim, length) + mixing

    def build(self, dim: int, max_length: int) -> "RetNet":
        self.validate(dim)
        return RetNet(dim, self.heads, self.expand_v * dim)


class RetNet(nn.Module):
    """``o_t = q_t S_t / sqrt(K)`` with ``S_t = (1 - 2**(-5 - h)) S_{t-1} + k_t v_t`` for head ``h``.

    Queries and keys are rotated by their position. The output of each head goes through an RMS norm without weights
    and the gate ``silu(W_g x_t)``, then a last projection. States are in at least float32.
    """

    def __init__(self, dim: int, heads: int, values: int) -> None:
        """``values`` is the width over all ``heads``; projections start Xavier-uniform with gain 2 ** -2.5, the last 1/2."""
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.v_proj, self.g_proj = nn.Linear(dim, values, bias=False), nn.Linear(dim, values, bias=False)
        self.out_proj = nn.Linear(values, dim, bias=False)
        for proj in (self.q_proj, self.k_proj, self.v_proj, self.g_proj):
            nn.init.xavier_uniform_(proj.weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.out_proj.weight, gain=0.5)

    def _log_decay(self, like: Tensor) -> Tensor:
        """Logarithms of the heads' decays (H), in the dtype and on the device of ``like``."""
        return torch.log1p(-torch.exp2(-5.0 - torch.arange(self.heads, dtype=like.dtype, device=like.device)))

    def _project(self, x_bld: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values (B, L, H, width), in at least float32."""
        head_dim = x_bld.shape[-1] // self.heads
        q, k = (rotate(at_least_float32(proj(x_bld)), positions, head_dim) for proj in (self.q_proj, self.k_proj))
        q, k, v = (t.view(*t.shape[:2], self.heads, -1) for t in (q * head_dim**-0.5, k, at_least_float32(self.v_proj(x_bld))))
        return q, k, v

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Norm, gate and last projection of the heads' outputs (..., H, V)."""
        normed = F.rms_norm(mixed, mixed.shape[-1:], eps=NORM_EPS).flatten(-2)
        return self.out_proj(normed.to(x.dtype) * F.silu(self.g_proj(x)))

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v = self._project(x_bld, torch.arange(x_bld.shape[1], device=x_bld.device))
        log_decay = self._log_decay(k).expand(k.shape[:3])
        with no_autocast(x_bld):
            chunk = chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1])
            mixed = scalar_decayed_linear_attention(q, k, v, log_decay, chunk)
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        weight = self.q_proj.weight
        keys, values = len(weight) // self.heads, len(self.v_proj.weight) // self.heads
        position = torch.zeros(batch_size, dtype=torch.int64, device=weight.device)
        return {"kv": weight.new_zeros(batch_size, self.heads, keys, values), "position": position}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        # The tokens of a step lie along the position axis while they are projected: (1, B, H, width).
        q, k, v = (t[0] for t in self._project(x_bd[None], state["position"]))
        kv = self._log_decay(k).exp()[:, None, None] * state["kv"] + k[..., None] * v[..., None, :]
        return self._read_out(x_bd, (q[..., None] * kv).sum(-2)), {"kv": kv, "position": state["position"] + 1}
