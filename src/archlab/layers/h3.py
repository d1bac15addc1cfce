"""H3: a shift and a diagonal state-space model, multiplied together like attention's keys, values and queries."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.layers.base import LayerConfig, divides, positive, register
from archlab.layers.ops.diagonal_ssm import DiagonalSSM, diagonal_ssm_kernel_flops, diagonal_ssm_params
from archlab.layers.ops.long_conv import causal_conv_heads, conv_heads_flops
from archlab.layers.ops.short_conv import ShortConv


@register("h3")
@dataclass(frozen=True)
class H3Config(LayerConfig):
    """H3 (arXiv 2212.14052, section 3), its diagonal state-space model initialised as :class:`DiagonalSSM` says.

    Knobs: ``head_dim``, channels a head; ``d_state`` of the diagonal model, real scalars for each of the products of a
    head's keys and values, an even number; ``d_conv``, states of the shift model, which is a causal convolution of as
    many taps. The paper takes 64 states in both, and heads of 1 or, in language models, of 8. The kernel is evaluated
    once for each ``forward``; ``flops`` charges it to the one sequence.
    """

    kind: ClassVar[Literal["sequence", "channel"]] = "sequence"
    paper: ClassVar[str] = "arXiv 2212.14052"
    state_knob: ClassVar[str] = "d_state"

    head_dim: int = 8
    d_state: int = 2
    d_conv: int = 4

    def __post_init__(self) -> None:
        """Refuse sizes below one, and states that are not pairs."""
        positive(self, "head_dim", "d_conv")
        if self.d_state < 2 or self.d_state % 2:
            raise ArchlabError(f"h3(d_state={self.d_state}): d_state must be even and at least 2: states come in pairs")

    def validate(self, dim: int) -> None:
        """Refuse heads that do not divide the width."""
        divides(self, "head_dim", dim)

    def num_params(self, dim: int, length: int) -> int:
        """See :meth:`LayerConfig.num_params`."""
        return 4 * dim * (dim + 1) + (self.d_conv + 1) * dim + diagonal_ssm_params(dim // self.head_dim, self.d_state)

    def matrix_state(self, dim: int, length: int) -> int:
        """See :meth:`LayerConfig.matrix_state`: the diagonal states of all products."""
        return dim * self.head_dim * self.d_state

    def state_size(self, dim: int, length: int) -> int:
        """See :meth:`LayerConfig.state_size`: the diagonal states of all products, and the keys the shift looks back on."""
        return self.matrix_state(dim, length) + dim * (self.d_conv - 1)

    def flops(self, dim: int, length: int) -> int:
        """See :meth:`LayerConfig.flops`: projections, shift, kernel and convolution."""
        heads = dim // self.head_dim
        kernel = diagonal_ssm_kernel_flops(heads, self.d_state, length)
        return 2 * length * dim * (4 * dim + self.d_conv) + kernel + conv_heads_flops(dim, heads, length)

    def build(self, dim: int, max_length: int) -> "H3":
        """See :meth:`LayerConfig.build`."""
        self.validate(dim)
        return H3(dim, self.head_dim, self.d_state, self.d_conv)


class H3(nn.Module):
    """``y = W_o (q SSM_diag(k' v^T))`` for each head, with ``k' = SSM_shift(k)`` on each channel; biases on all maps.

    Of the shift model only the read-out is trained, so it is a causal convolution; a skip connection goes around it.
    The outer products of a head are filtered by one kernel and never formed: their sum is exchanged with that of ``q``.
    """

    def __init__(self, dim: int, head_dim: int, d_state: int, d_conv: int) -> None:
        """Heads of ``head_dim`` channels; ``d_state`` scalars a product, ``d_conv`` taps of the shift."""
        super().__init__()
        self.head_dim = head_dim
        self.qkv_proj = nn.Linear(dim, 3 * dim)
        self.shift = ShortConv(dim, d_conv, bias=False)
        self.shift_skip = nn.Parameter(torch.randn(dim))
        self.ssm = DiagonalSSM(dim // head_dim, d_state)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        q_bld, k_bld, v_bld = self.qkv_proj(x_bld).chunk(3, -1)
        k_bld = self.shift(k_bld) + self.shift_skip * k_bld
        q_hdbl, k_hdbl, v_hebl = (t.view(*t.shape[:2], -1, self.head_dim).permute(2, 3, 0, 1) for t in (q_bld, k_bld, v_bld))
        y_hebl = causal_conv_heads(q_hdbl, k_hdbl, v_hebl, self.ssm.kernel(x_bld.shape[1]))
        out: Tensor = self.out_proj(y_hebl.flatten(0, 1).permute(1, 2, 0))
        return out

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Zero states (B, head dim, head dim, heads, 2, N / 2) and an empty window of keys (B, K - 1, D)."""
        return {
            "ssm": self.ssm.init_state(batch_size, self.head_dim, self.head_dim),
            "shift": self.shift.init_state(batch_size),
        }

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token: see :class:`archlab.layers.Recurrent`."""
        q_bd, k_bd, v_bd = self.qkv_proj(x_bd).chunk(3, -1)
        shifted_bd, shift = self.shift.step(k_bd, state["shift"])
        q_bdh, k_bdh, v_beh = (t.view(len(x_bd), -1, self.head_dim).mT for t in (q_bd, shifted_bd + self.shift_skip * k_bd, v_bd))
        filtered_bdeh, ssm = self.ssm.step(k_bdh[:, :, None] * v_beh[:, None], state["ssm"])
        y_beh = (q_bdh[:, :, None] * filtered_bdeh).sum(1)
        return self.out_proj(y_beh.mT.flatten(1)), {"ssm": ssm, "shift": shift}
