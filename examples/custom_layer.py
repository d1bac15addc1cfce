"""A layer of your own in one file: ``archlab run "2*[ema swiglu]" --layers custom_layer.py``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers import LayerConfig, register


class EMA(nn.Module):
    """``y = W_o (h * silu(W_g x))`` with ``h_t = a h_{t-1} + (1 - a) W_i x_t``, one trainable decay ``a`` a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.decay_logit = nn.Parameter(torch.linspace(0.0, 5.0, dim))  # memories of 2 to 150 tokens
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        length = x_bld.shape[1]
        u_bld, gate_bld = self.in_proj(x_bld).chunk(2, -1)
        a_d1 = self.decay_logit.sigmoid()[:, None]
        kernel_dl = (1 - a_d1) * a_d1 ** torch.arange(length - 1, -1, -1, device=x_bld.device)
        padded_bdl = F.pad(u_bld.transpose(1, 2), (length - 1, 0))  # no output sees a later token
        h_bdl = F.conv1d(padded_bdl, kernel_dl[:, None], groups=len(a_d1))
        return self.out_proj(h_bdl.transpose(1, 2) * F.silu(gate_bld))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"h": self.decay_logit.new_zeros(batch_size, len(self.decay_logit))}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        u_bd, gate_bd = self.in_proj(x_bd).chunk(2, -1)
        a_d = self.decay_logit.sigmoid()
        h_bd = a_d * state["h"] + (1 - a_d) * u_bd
        return self.out_proj(h_bd * F.silu(gate_bd)), {"h": h_bd}


@register("ema")
@dataclass(frozen=True)
class EMAConfig(LayerConfig):
    """Gated exponential moving average."""

    kind: ClassVar[Literal["sequence", "channel"]] = "sequence"
    paper: ClassVar[str] = "after arXiv 2209.10655"

    def num_params(self, dim: int, length: int) -> int:
        return 3 * dim * dim + dim

    def state_size(self, dim: int, length: int) -> int:
        return dim

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * 3 * dim * dim + 2 * length * length * dim

    def build(self, dim: int, max_length: int) -> EMA:
        return EMA(dim)
