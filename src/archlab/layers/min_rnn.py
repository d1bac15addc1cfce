"""minGRU and minLSTM: the two classics, their gates blind to the state, hence a linear recurrence."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import LayerConfig
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.scan import mixing_scan
from archlab.layers.registry import register


@register("min-gru")
class MinGRUConfig(LayerConfig):
    """minGRU (arXiv 2410.01201, section 3.1): one gate that mixes the state with a candidate.

    Knob: ``expand``, channels of the state over the width. The states are the output; from 2 on a linear map
    brings them back to the width.
    """

    paper: ClassVar[str] = "arXiv 2410.01201"
    maps: ClassVar[int] = 2
    """Linear maps of a token: one for each gate, one for the candidate."""

    expand: Count = 1

    def num_params(self, dim: int, length: int) -> int:
        return (self.maps + (self.expand > 1)) * self.expand * dim * dim

    def state_size(self, dim: int, length: int) -> int:
        return self.expand * dim

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * self.num_params(dim, length) + 2 * (length - 1) * self.expand * dim

    def build(self, dim: int, max_length: int) -> "MinGRU":
        return MinGRU(dim, self.expand * dim, self.maps)


@register("min-lstm")
class MinLSTMConfig(MinGRUConfig):
    """minLSTM (arXiv 2410.01201, section 3.2): a forget and an input gate, normalised to sum to one.

    Knob: as :class:`MinGRUConfig`.
    """

    maps: ClassVar[int] = 3

    def build(self, dim: int, max_length: int) -> "MinLSTM":
        return MinLSTM(dim, self.expand * dim, self.maps)


class MinGRU(nn.Module):
    """``h_t = (1 - z_t) h_{t-1} + z_t g(W_h x_t)`` with ``z_t = sigmoid(W_z x_t)``.

    ``g(x)`` is ``x + 0.5`` for ``x >= 0``, else ``sigmoid(x)``: positive and continuous, as the paper's form in logarithms
    (appendix B) needs it. The scan here needs no logarithms, and is in at least float32. The state starts at zero.
    """

    def __init__(self, dim: int, inner: int, maps: int) -> None:
        super().__init__()
        self.inner = inner
        self.in_proj = nn.Linear(dim, maps * inner, bias=False)
        self.out_proj = nn.Linear(inner, dim, bias=False) if inner != dim else nn.Identity()

    def _logits(self, *gates: Tensor) -> Tensor:
        """Logits of the candidate's share of the new state."""
        return gates[0]

    def _recurrence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the candidates' shares, and the candidates, each (..., W)."""
        maps = torch.split(self.in_proj.weight, self.inner)
        *gates, candidates = (at_least_float32(F.linear(x, weight)) for weight in maps)
        return self._logits(*gates), torch.sigmoid(candidates.clamp(max=0)) + F.relu(candidates)

    def forward(self, x_bld: Tensor) -> Tensor:
        logits_lbw, candidates_lbw = self._recurrence(x_bld.transpose(0, 1).contiguous())
        with no_autocast(x_bld):
            h_lbw = mixing_scan(logits_lbw, candidates_lbw)
        return self.out_proj(h_lbw.to(x_bld.dtype)).transpose(0, 1)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"h": self.in_proj.weight.new_zeros(batch_size, self.inner)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        logits_bw, candidates_bw = self._recurrence(x_bd)
        h_bw = torch.lerp(state["h"], candidates_bw, torch.sigmoid(logits_bw))
        return self.out_proj(h_bw), {"h": h_bw}


class MinLSTM(MinGRU):
    """``h_t = f'_t h_{t-1} + i'_t g(W_h x_t)`` with ``f' = f / (f + i)``, ``i' = i / (f + i)`` of two sigmoid gates.

    All else as :class:`MinGRU`.
    """

    def _logits(self, *gates: Tensor) -> Tensor:
        # i / (f + i) without the quotient, which is 0 / 0 where both gates are closed.
        forget, write = gates
        return F.logsigmoid(write) - F.logsigmoid(forget)
