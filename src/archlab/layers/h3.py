"""H3: a shift and a diagonal state-space model, multiplied together like attention's keys, values and queries."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.knobs import Even
from archlab.layers.ops.diagonal_ssm import DiagonalSSM, diagonal_ssm_kernel_flops, diagonal_ssm_params
from archlab.layers.ops.long_conv import causal_conv_heads, conv_heads_flops
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention, scalar_decayed_linear_attention_flops
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.registry import register

CHUNK = 32
KERNEL_MAX_LENGTH = 256
"""In longer sequences the products of a head with one pair of states go through its states, chunk by chunk."""


@register("h3")
class H3Config(LayerConfig):
    """H3 (arXiv 2212.14052, section 3), its diagonal state-space model initialised as :class:`DiagonalSSM` says.

    Knobs: ``head_dim``, channels a head; ``d_state`` of the diagonal model, real scalars for each of the products of a
    head's keys and values, an even number; ``d_conv``, states of the shift model, which is a causal convolution of as
    many taps. The paper takes 64 states in both, and heads of 1 or, in language models, of 8. The kernel is evaluated
    once for each ``forward``; ``flops`` charges it to the one sequence.
    """

    paper: ClassVar[str] = "arXiv 2212.14052"
    state_knob: ClassVar[str] = "d_state"

    head_dim: Divisor = 8
    d_state: Even = 2
    d_conv: Count = 4

    def num_params(self, dim: int, length: int) -> int:
        return 4 * dim * (dim + 1) + (self.d_conv + 1) * dim + diagonal_ssm_params(dim // self.head_dim, self.d_state)

    def matrix_state(self, dim: int, length: int) -> int:
        return dim * self.head_dim * self.d_state

    def state_size(self, dim: int, length: int) -> int:
        # The diagonal states of all products, and the keys the shift looks back on.
        return self.matrix_state(dim, length) + dim * (self.d_conv - 1)

    def flops(self, dim: int, length: int) -> int:
        heads, mapped = dim // self.head_dim, 2 * length * dim * (4 * dim + self.d_conv)
        if _through_states(self.d_state, length):
            return mapped + heads * scalar_decayed_linear_attention_flops(2 * self.head_dim, self.head_dim, length, CHUNK)
        return mapped + diagonal_ssm_kernel_flops(heads, self.d_state, length) + conv_heads_flops(dim, heads, length)

    def build(self, dim: int, max_length: int) -> "H3":
        self.validate(dim)
        return H3(dim, self.head_dim, self.d_state, self.d_conv)


def _through_states(d_state: int, length: int) -> bool:
    return d_state == 2 and length > KERNEL_MAX_LENGTH


class H3(nn.Module):
    """``y = W_o (q SSM_diag(k' v^T))`` for each head, with ``k' = SSM_shift(k)`` on each channel; biases on all maps.

    Of the shift model only the read-out is trained, so it is a causal convolution; a skip connection goes around it.
    The outer products of a head are filtered by one kernel and never formed: their sum is exchanged with that of ``q``.
    """

    def __init__(self, dim: int, head_dim: int, d_state: int, d_conv: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv_proj = nn.Linear(dim, 3 * dim)
        self.shift = ShortConv(dim, d_conv, bias=False)
        self.shift_skip = nn.Parameter(torch.randn(dim))
        self.ssm = DiagonalSSM(dim // head_dim, d_state)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x_bld: Tensor) -> Tensor:
        q_bld, k_bld, v_bld = self.qkv_proj(x_bld).chunk(3, -1)
        k_bld = self.shift(k_bld, self.shift_skip)
        q_blhd, k_blhd, v_blhe = (t.view(*t.shape[:2], -1, self.head_dim) for t in (q_bld, k_bld, v_bld))
        mix = self._by_states if _through_states(self.ssm.d_state, x_bld.shape[1]) else self._by_kernel
        return self.out_proj(mix(q_blhd, k_blhd, v_blhe).flatten(2))

    def _by_kernel(self, q_blhd: Tensor, k_blhd: Tensor, v_blhe: Tensor) -> Tensor:
        q_hdbl, k_hdbl, v_hebl = (t.permute(2, 3, 0, 1).contiguous() for t in (q_blhd, k_blhd, v_blhe))
        return causal_conv_heads(q_hdbl, k_hdbl, v_hebl, self.ssm.kernel(q_blhd.shape[1])).permute(2, 3, 0, 1)

    def _by_states(self, q_blhd: Tensor, k_blhd: Tensor, v_blhe: Tensor) -> Tensor:
        """One pair of states turns as it decays: decayed linear attention with every query and key in two directions."""
        with no_autocast(q_blhd):
            q_blhd, k_blhd, v_f32_blhe = (at_least_float32(t) for t in (q_blhd, k_blhd, v_blhe))
            log_decay_h, read_lhp, write_lhp = self.ssm.factors(q_blhd.shape[1])
            queries, keys = ((t[:, :, None] * x[..., None]).flatten(3) for t, x in ((read_lhp, q_blhd), (write_lhp, k_blhd)))
            log_decay_blh = log_decay_h.expand(*q_blhd.shape[:3])
            y_blhe = scalar_decayed_linear_attention(queries, keys, v_f32_blhe, log_decay_blh, CHUNK)
            y_blhe = y_blhe + (self.ssm.D[:, None] * (q_blhd * k_blhd).sum(-1, keepdim=True)) * v_f32_blhe
        return y_blhe.to(v_blhe.dtype)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"ssm": self.ssm.init_state(batch_size, self.head_dim, self.head_dim), "shift": self.shift.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        q_bd, k_bd, v_bd = self.qkv_proj(x_bd).chunk(3, -1)
        shifted_bd, shift = self.shift.step(k_bd, state["shift"])
        q_bdh, k_bdh, v_beh = (t.view(len(x_bd), -1, self.head_dim).mT for t in (q_bd, shifted_bd + self.shift_skip * k_bd, v_bd))
        filtered_bdeh, ssm = self.ssm.step(k_bdh[:, :, None] * v_beh[:, None], state["ssm"])
        y_beh = (q_bdh[:, :, None] * filtered_bdeh).sum(1)
        return self.out_proj(y_beh.mT.flatten(1)), {"ssm": ssm, "shift": shift}
