"""S4D: a diagonal state-space model on every channel, then a gated linear map across them."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.contract import LayerConfig
from archlab.layers.knobs import Even
from archlab.layers.ops.diagonal_ssm import DiagonalSSM, diagonal_ssm_kernel_flops, diagonal_ssm_params
from archlab.layers.ops.long_conv import causal_conv, conv_flops
from archlab.layers.registry import register


@register("s4d")
class S4DConfig(LayerConfig):
    """S4D (arXiv 2206.11893) in its S4D-Lin form, discretised by zero-order hold.

    Knob: ``d_state``, real scalars a channel, an even number: the paper takes 64, in 32 conjugate pairs. The kernel is
    evaluated once for each ``forward``; ``flops`` charges it to the one sequence.
    """

    paper: ClassVar[str] = "arXiv 2206.11893"
    state_knob: ClassVar[str] = "d_state"

    d_state: Even = 16

    def num_params(self, dim: int, length: int) -> int:
        return diagonal_ssm_params(dim, self.d_state) + 2 * dim * (dim + 1)

    def state_size(self, dim: int, length: int) -> int:
        # Real and imaginary parts.
        return dim * self.d_state

    def flops(self, dim: int, length: int) -> int:
        kernel = diagonal_ssm_kernel_flops(dim, self.d_state, length)
        return kernel + conv_flops(dim, length, length) + 4 * length * dim * dim

    def build(self, dim: int, max_length: int) -> "S4D":
        return S4D(dim, self.d_state)


class S4D(nn.Module):
    """``a * sigmoid(b)`` with ``[a, b] = W gelu(conv(K, x)) + c``, where ``K`` are the kernels of a :class:`DiagonalSSM`."""

    def __init__(self, dim: int, d_state: int) -> None:
        super().__init__()
        self.ssm = DiagonalSSM(dim, d_state)
        self.out_proj = nn.Linear(dim, 2 * dim)
        for parameter in self.out_proj.parameters():
            parameter._reference_init = "own"  # type: ignore[attr-defined]

    def forward(self, x_bld: Tensor) -> Tensor:
        y_dbl = causal_conv(x_bld.permute(2, 0, 1), self.ssm.kernel(x_bld.shape[1]))
        return F.glu(self.out_proj(F.gelu(y_dbl.permute(1, 2, 0))))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"ssm": self.ssm.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        y_bd, ssm = self.ssm.step(x_bd, state["ssm"])
        return F.glu(self.out_proj(F.gelu(y_bd))), {"ssm": ssm}
