"""HGRN2: a matrix state whose keys are what its forget gates leave free."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.fields import Count, at_least, below
from archlab.layers.contract import LayerConfig, divides
from archlab.layers.ops.decay import chunk_size, decayed_linear_attention, decayed_linear_attention_flops
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.registry import register

NORM_EPS = 1e-5


@register("hgrn2")
@dataclass(frozen=True)
class HGRN2Config(LayerConfig):
    """HGRN2 (arXiv 2404.07904): gated linear attention whose keys are what the gates forget.

    Knobs: ``expand_ratio``, channels a head, and so states for each channel of the width; ``lower_bound`` of the
    forget gates, in [0, 1): the paper's first layer has 0, later ones more.
    """

    paper: ClassVar[str] = "arXiv 2404.07904"
    state_knob: ClassVar[str] = "expand_ratio"

    expand_ratio: Count = 16
    lower_bound: Annotated[float, at_least(0), below(1)] = 0.0

    @override
    def validate(self, dim: int) -> None:
        divides(self, "expand_ratio", dim)

    @override
    def num_params(self, dim: int, length: int) -> int:
        return 4 * dim * dim + dim

    @override
    def state_size(self, dim: int, length: int) -> int:
        return dim * self.expand_ratio

    @override
    def flops(self, dim: int, length: int) -> int:
        head = self.expand_ratio, self.expand_ratio, length
        mixing = dim // self.expand_ratio * decayed_linear_attention_flops(*head, chunk_size(*head))
        return 8 * length * dim * dim + mixing

    @override
    def build(self, dim: int, max_length: int) -> "HGRN2":
        self.validate(dim)
        return HGRN2(dim, self.expand_ratio, self.lower_bound)


class HGRN2(nn.Module):
    """``o_t = silu(W_q x_t) S_t / sqrt(K)`` with ``S_t = diag(f_t) S_{t-1} + (1 - f_t) W_i x_t``.

    ``f_t = b + (1 - b) sigmoid(W_f x_t)`` with the lower bound ``b``. The outputs of all heads together go through an
    RMS norm and a last projection. Gates and states are in at least float32.
    """

    def __init__(self, dim: int, head_dim: int, lower_bound: float) -> None:
        """Heads of ``head_dim`` channels, keys' and values' alike."""
        super().__init__()
        self.head_dim = head_dim
        self.lower_bound = lower_bound
        self.q_proj, self.f_proj, self.i_proj, self.out_proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.norm = nn.RMSNorm(dim, eps=NORM_EPS)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled queries, keys, values and log decays, each (..., heads, width), in at least float32."""
        projected = (at_least_float32(proj(x)) for proj in (self.q_proj, self.f_proj, self.i_proj))
        q, gate, v = (t.view(*x.shape[:-1], -1, self.head_dim) for t in projected)
        log_decay = F.logsigmoid(gate) + math.log1p(-self.lower_bound)
        if self.lower_bound:
            log_decay = torch.logaddexp(log_decay, torch.full_like(log_decay, math.log(self.lower_bound)))
        # 1 - f from the other side of the sigmoid: near f = 1 a difference would have no digits left.
        return F.silu(q) * self.head_dim**-0.5, (1 - self.lower_bound) * torch.sigmoid(-gate), v, log_decay

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Norm and last projection of the heads' outputs (..., heads, width)."""
        out: Tensor = self.out_proj(self.norm(mixed.flatten(-2)).to(x.dtype))
        return out

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        q, k, v, log_decay = self._project(x_bld)
        with no_autocast(x_bld):
            mixed = decayed_linear_attention(q, k, v, log_decay, chunk_size(self.head_dim, self.head_dim, x_bld.shape[1]))
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Zero matrices (B, heads, width, width)."""
        weight = self.q_proj.weight
        return {"kv": weight.new_zeros(batch_size, len(weight) // self.head_dim, self.head_dim, self.head_dim)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token (B, D) and the state to the output (B, D) and the next state."""
        q, k, v, log_decay = self._project(x_bd)
        kv = log_decay.exp()[..., None] * state["kv"] + k[..., None] * v[..., None, :]
        return self._read_out(x_bd, (q[..., None] * kv).sum(-2)), {"kv": kv}
