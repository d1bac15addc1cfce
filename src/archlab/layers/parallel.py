"""Layers side by side on one input: their outputs are added."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.layers.contract import Composite
from archlab.layers.registry import register
from archlab.layers.substates import State, init_states, step_each


@register("parallel")
@dataclass(frozen=True)
class ParallelConfig(Composite):
    """Branches on the same input, added: ``y = sum_i f_i(x)``; with ``gate``, ``y = sum_i 2 sigmoid(w_i x + b_i) f_i(x)``.

    The gates, one a branch and token, start at 1, where the weighted sum is the sum. They do not compete as a softmax
    would: a token can take all branches, or none. Channel mixers may stand beside sequence mixers:
    ``parallel(mh-attention, swiglu)``.

    Source: parallel branches are those of MAD's topologies (arXiv 2403.17844, section 3); the gate is this package's.
    """

    paper: ClassVar[str] = "arXiv 2403.17844"

    gate: bool = False

    def __post_init__(self) -> None:
        """Refuse less than two branches too."""
        super().__post_init__()
        if len(self.layers) < 2:
            raise ArchlabError(f"{self}: give two layers or more to add, as in parallel(mamba, mh-attention)")

    @override
    def num_params(self, dim: int, length: int) -> int:
        gates = (dim + 1) * len(self.layers) if self.gate else 0
        return sum(x.num_params(dim, length) for x in self.layers) + gates

    @override
    def flops(self, dim: int, length: int) -> int:
        return sum(x.flops(dim, length) for x in self.layers) + self._gate_flops(dim, length)

    @override
    def active_flops(self, dim: int, length: int) -> int:
        return sum(x.active_flops(dim, length) for x in self.layers) + self._gate_flops(dim, length)

    def _gate_flops(self, dim: int, length: int) -> int:
        return 2 * length * dim * len(self.layers) if self.gate else 0

    @override
    def build(self, dim: int, max_length: int) -> "Parallel":
        return Parallel([x.build(dim, max_length) for x in self.layers], dim if self.gate else 0)


class Parallel(nn.Module):
    """The sum of its branches, built by :class:`ParallelConfig`."""

    def __init__(self, branches: list[nn.Module], gate_dim: int) -> None:
        """``gate_dim``: the width, 0 for no gates."""
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.gate = nn.Linear(gate_dim, len(branches)) if gate_dim else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def _sum(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        if self.gate is not None:
            gates = 2 * torch.sigmoid(self.gate(x))
            outputs = [gate[..., None] * y for gate, y in zip(gates.unbind(-1), outputs, strict=True)]
        return sum(outputs[1:], outputs[0])

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        return self._sum(x_bld, [branch(x_bld) for branch in self.branches])

    def init_state(self, batch_size: int) -> State:
        """States of its parts before the first token."""
        return init_states(self.branches, batch_size)

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        """One token (B, D) and the state to the output (B, D) and the next state."""
        outputs, state = step_each(self.branches, x_bd, state)
        return self._sum(x_bd, outputs), state
