"""Layers of layers: side by side on one input, and experts of which each token reads a few."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.fields import Bound, Count
from archlab.layers.contract import Composite, LayerConfig, Recurrent
from archlab.layers.ops.routing import Router, router_params
from archlab.layers.registry import register

State = dict[str, Tensor]

_REASON = "the weights of the chosen add up to 1, so a single one would leave the router nothing to learn from"
Choice = Annotated[int, Bound(lambda value: value >= 2, f"of at least 2: {_REASON}")]
"""Experts that a token is routed to."""


@register("parallel")
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
        super().__post_init__()
        if len(self.layers) < 2:
            raise ArchlabError(f"{self}: give two layers or more to add, as in parallel(mamba, mh-attention)")

    def num_params(self, dim: int, length: int) -> int:
        gates = (dim + 1) * len(self.layers) if self.gate else 0
        return sum(x.num_params(dim, length) for x in self.layers) + gates

    def flops(self, dim: int, length: int) -> int:
        return sum(x.flops(dim, length) for x in self.layers) + self._gate_flops(dim, length)

    def active_flops(self, dim: int, length: int) -> int:
        return sum(x.active_flops(dim, length) for x in self.layers) + self._gate_flops(dim, length)

    def _gate_flops(self, dim: int, length: int) -> int:
        return 2 * length * dim * len(self.layers) if self.gate else 0

    def build(self, dim: int, max_length: int) -> "Parallel":
        return Parallel([x.build(dim, max_length) for x in self.layers], dim if self.gate else 0)


@register("experts")
class ExpertsConfig(Composite):
    """``num`` copies of a layer; each token's output is a weighted sum of those of the ``active`` that it is routed to.

    Weights are a softmax over the logits of the chosen; :class:`archlab.layers.ops.routing.Router` says how the copies are
    kept equally busy. Every copy computes every token and the outputs of the others are dropped, so the shapes do not
    depend on the data; ``flops`` counts that, and ``active_flops`` what the outputs need. A channel mixer needs its
    active copies only. A sequence mixer is routed by its outputs, as in MAD's Hyena experts: each copy takes in every
    token, or its state would miss some, and nothing of it can be left out.

    Source: sparse-parallel topologies of MAD (arXiv 2403.17844, section 3); top-k routing, Shazeer et al. 2017
    (arXiv 1701.06538); balance without a loss, Wang et al. 2024 (arXiv 2408.15664).
    """

    paper: ClassVar[str] = "arXiv 2403.17844; 1701.06538; 2408.15664"

    num: Count = 8
    active: Choice = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != 1:
            raise ArchlabError(f"{self}: give one layer to make copies of, as in experts(mamba, num=4)")
        check_choice(self, self.num, self.active)

    def num_params(self, dim: int, length: int) -> int:
        return self.num * self.layers[0].num_params(dim, length) + router_params(dim, self.num)

    @property
    def copies(self) -> int:
        return self.num

    def flops(self, dim: int, length: int) -> int:
        return self.num * self.layers[0].flops(dim, length) + 2 * length * dim * self.num

    def active_flops(self, dim: int, length: int) -> int:
        needed = self.active if self.kind == "channel" else self.num
        return needed * self.layers[0].active_flops(dim, length) + 2 * length * dim * self.num

    def build(self, dim: int, max_length: int) -> "Experts":
        experts = [self.layers[0].build(dim, max_length) for _ in range(self.num)]
        return Experts(experts, Router(dim, self.num, self.active))


def check_choice(config: LayerConfig, num: int, active: int) -> None:
    """Refuse, in ``__post_init__``, to choose more experts than there are: ArchlabError names layer, knobs and values."""
    if active > num:
        raise ArchlabError(f"{config.name}(num={num}, active={active}): active must be at most num")


class SideBySide(nn.Module, ABC):
    """Layers on one input; the state holds those of its sequence mixers, each name behind the layer's index: ``"0.keys"``."""

    def __init__(self, name: str, layers: Iterable[nn.Module]) -> None:
        """``name``: that of the list of layers among the module's own."""
        super().__init__()
        self.add_module(name, nn.ModuleList(layers))
        self._name = name

    @property
    def _layers(self) -> Iterable[nn.Module]:
        return self.get_submodule(self._name).children()

    @abstractmethod
    def _combine(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        """The output for tokens (..., D), given those of the layers."""

    def forward(self, x_bld: Tensor) -> Tensor:
        return self._combine(x_bld, [layer(x_bld) for layer in self._layers])

    def init_state(self, batch_size: int) -> State:
        return {
            f"{index}.{name}": tensor
            for index, layer in enumerate(self._layers)
            if isinstance(layer, Recurrent)
            for name, tensor in layer.init_state(batch_size).items()
        }

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        outputs: list[Tensor] = []
        after: State = {}
        for index, layer in enumerate(self._layers):
            if isinstance(layer, Recurrent):
                prefix = f"{index}."
                own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
                y_bd, own = layer.step(x_bd, own)
                after |= {prefix + name: tensor for name, tensor in own.items()}
            else:
                y_bd = layer(x_bd[:, None])[:, 0]
            outputs.append(y_bd)
        return self._combine(x_bd, outputs), after


class Parallel(SideBySide):
    """The sum of its branches, built by :class:`ParallelConfig`."""

    def __init__(self, branches: list[nn.Module], gate_dim: int) -> None:
        """``gate_dim``: the width, 0 for no gates."""
        super().__init__("branches", branches)
        self.gate = nn.Linear(gate_dim, len(branches)) if gate_dim else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def _combine(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        if self.gate is not None:
            return _weighted(2 * torch.sigmoid(self.gate(x)), outputs)
        return sum(outputs[1:], outputs[0])


class Experts(SideBySide):
    """Copies of a layer behind a router, built by :class:`ExpertsConfig`."""

    def __init__(self, experts: list[nn.Module], router: Router) -> None:
        super().__init__("experts", experts)
        self.router = router

    def forward(self, x_bld: Tensor) -> Tensor:
        # The router comes first: in this order gradients of the input have always been added up.
        return _weighted(self.router(x_bld), [expert(x_bld) for expert in self._layers])

    def _combine(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        return _weighted(self.router(x), outputs)


def _weighted(weights: Tensor, outputs: list[Tensor]) -> Tensor:
    """The sum of outputs (..., D) by their weights (..., layers)."""
    first, *rest = (weight[..., None] * y for weight, y in zip(weights.unbind(-1), outputs, strict=True))
    return sum(rest, first)
