"""RG-LRU: the gated diagonal recurrence of Griffin and Hawk, in their recurrent block."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from archlab.errors import ArchlabError
from archlab.fields import Count, Natural
from archlab.layers.contract import LayerConfig
from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.scan import accumulate
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.registry import register

RATE = 8.0
"""The paper's ``c``: how often the recurrence gate, wide open, applies the decay of a channel."""
SLOWEST, FASTEST = 0.999, 0.9
"""Between these ``sigmoid(Lambda)`` starts."""
NO_DECAY = -1e-30
"""Log decays above this are taken as this: at zero the square root has no derivative."""

_LOG2_E = math.log2(math.e)


@register("rg-lru")
class RGLRUConfig(LayerConfig):
    """Griffin's recurrent block around the real-gated linear recurrent unit (arXiv 2402.19427, section 2.4).

    Knobs: ``lru_width`` channels of the recurrence (0: four thirds of the width, rounded up to a multiple of
    ``blocks``), ``blocks`` on the diagonal of the gates' matrices, ``d_conv`` taps of the short convolution.
    """

    paper: ClassVar[str] = "arXiv 2402.19427"

    lru_width: Natural = 0
    blocks: Count = 16
    d_conv: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lru_width % self.blocks:
            raise ArchlabError(
                f"rg-lru(lru_width={self.lru_width}): lru_width must be a multiple of blocks={self.blocks},"
                " or 0 for four thirds of the width"
            )

    def _inner(self, dim: int) -> int:
        return self.lru_width or self.blocks * -(-4 * dim // (3 * self.blocks))

    def _weights(self, dim: int) -> int:
        """Entries of the linear maps, those of the two gates within their blocks."""
        inner = self._inner(dim)
        return 3 * dim * inner + 2 * inner * inner // self.blocks

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + (self.d_conv + 6) * self._inner(dim) + dim

    def state_size(self, dim: int, length: int) -> int:
        # The recurrence and the inputs the convolution looks back on.
        return self._inner(dim) * self.d_conv

    def matrix_state(self, dim: int, length: int) -> int:
        return self._inner(dim)

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * (self._weights(dim) + (self.d_conv + 1) * self._inner(dim))

    def build(self, dim: int, max_length: int) -> "RGLRU":
        return RGLRU(dim, self._inner(dim), self.blocks, self.d_conv)


class RGLRU(nn.Module):
    """``y = W_out (gelu(W_gate x) * h)`` with ``h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t * u_t)`` and ``u = conv(W_in x)``.

    ``a_t = sigmoid(Lambda)^(8 r_t)``; the recurrence gate ``r`` and the input gate ``i`` are sigmoids of block-diagonal
    maps of ``u`` (equations 1 to 4). Gates and states are in at least float32. The first token is scaled as every other,
    as in the paper; the authors' code lets it in whole.
    """

    def __init__(self, dim: int, inner: int, blocks: int, d_conv: int) -> None:
        """The square of ``sigmoid(Lambda)`` starts uniform in [0.9^2, 0.999^2], so decays under an open gate in [0.43, 0.99]."""
        super().__init__()
        self.gate_proj = nn.Linear(dim, inner)
        self.in_proj = nn.Linear(dim, inner)
        self.conv = ShortConv(inner, d_conv)
        block = inner // blocks
        self.gates_weight = nn.Parameter(torch.randn(2, blocks, block, block) * block**-0.5)
        self.gates_bias = nn.Parameter(torch.zeros(2, inner))
        decay = torch.empty(inner).uniform_(FASTEST**2, SLOWEST**2).sqrt()
        self.Lambda = nn.Parameter(torch.logit(decay))
        self.out_proj = nn.Linear(inner, dim)
        for parameter in (self.gates_bias, self.Lambda):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _logits(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both gates (..., 2, W) and the log decays under an open one (W), of the convolved tokens ``u`` (..., W)."""
        in_blocks = u.view(*u.shape[:-1], self.gates_weight.shape[1], -1)
        gates = torch.einsum("...hi,ghio->...gho", in_blocks, self.gates_weight).flatten(-2)
        return at_least_float32(gates) + self.gates_bias, RATE * F.logsigmoid(self.Lambda)

    def _recurrence(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Decays and what is added to the state, each (..., W), of the convolved tokens ``u`` (..., W)."""
        _, i, decay, scale = _gates(*self._logits(u))
        return decay, scale * i * at_least_float32(u)

    def _read_out(self, x: Tensor, h: Tensor) -> Tensor:
        """The gate and the last projection of the states ``h`` (..., W), given the tokens ``x`` (..., D)."""
        gate = F.gelu(self.gate_proj(x), approximate="tanh")
        return self.out_proj(gate * h.to(gate.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        x_lbd = x_bld.transpose(0, 1).contiguous()
        u_lbw = self.conv(self.in_proj(x_lbd).transpose(0, 1)).transpose(0, 1)
        logits = self._logits(u_lbw)
        with no_autocast(x_bld):
            h_lbw = apply(_GatedRecurrence, at_least_float32(u_lbw), *logits)
        return self._read_out(x_lbd, h_lbw).transpose(0, 1)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"h": self.Lambda.new_zeros(batch_size, len(self.Lambda)), "conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        u_bw, conv = self.conv.step(self.in_proj(x_bd), state["conv"])
        decay_bw, inputs_bw = self._recurrence(u_bw)
        h_bw = decay_bw * state["h"] + inputs_bw
        return self._read_out(x_bd, h_bw), {"h": h_bw, "conv": conv}


def _gates(logits: Tensor, rates_w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two gates, decays ``a`` and factors ``sqrt(1 - a^2)``, each (..., W)."""
    r, i = torch.sigmoid(logits).unbind(-2)
    log_decay = (r * rates_w).clamp(max=NO_DECAY)
    # 1 - a^2 as a difference is zero for the slow channels, whose decays round to 1.
    return r, i, torch.exp2(_LOG2_E * log_decay), torch.sqrt(-torch.expm1(2 * log_decay))


class _GatedRecurrence(Function):
    """States (L, B, W) from ``u`` (L, B, W), the gates' logits (L, B, 2, W) and log decays (W): few passes over memory."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, logits: Tensor, rates_w: Tensor) -> Tensor:
        r, i, decay, scale = _gates(logits, rates_w)
        h = (scale * i).mul_(u)
        accumulate(decay[1:], h)
        ctx.save_for_backward(u, r, i, decay, scale, h, rates_w)
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, r, i, decay, scale, h, rates_w = ctx.saved_tensors
        dh = grads[0].clone(memory_format=torch.contiguous_format)
        accumulate(decay[1:], dh, backwards=True)
        du = dh * i
        # The log decay's, over the decay: what it does to the state, less what it does to the input's factor.
        dlog = (du * u).mul_(decay).div_(scale).neg_()
        dlog[1:].addcmul_(dh[1:], h[:-1])
        dlog.mul_(decay).mul_(r)
        dscaled = dh.mul_(scale)
        dlogits = u.new_empty(*u.shape[:2], 2, u.shape[2])
        dr, di = dlogits.unbind(2)
        torch.mul(dlog, rates_w, out=dr).addcmul_(dr, r, value=-1)
        torch.mul(dscaled, u, out=di).mul_(i).addcmul_(di, i, value=-1)
        return du.mul_(scale), dlogits, dlog.sum((0, 1))
