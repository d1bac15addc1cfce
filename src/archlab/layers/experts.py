"""Experts of any layer, of which each token reads a few: sparse-parallel topologies."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Bound, Count
from archlab.layers.contract import Composite, LayerConfig
from archlab.layers.ops.routing import Router, router_params
from archlab.layers.registry import register
from archlab.layers.substates import State, init_states, step_each

_REASON = "the weights of the chosen add up to 1, so a single one would leave the router nothing to learn from"
Choice = Annotated[int, Bound(lambda value: value >= 2, f"of at least 2: {_REASON}")]
"""Experts that a token is routed to."""


@register("experts")
@dataclass(frozen=True)
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
        """Refuse other than one layer, and to choose more copies than there are too."""
        super().__post_init__()
        if len(self.layers) != 1:
            raise ArchlabError(f"{self}: give one layer to make copies of, as in experts(mamba, num=4)")
        check_choice(self, self.num, self.active)

    @override
    def num_params(self, dim: int, length: int) -> int:
        return self.num * self.layers[0].num_params(dim, length) + router_params(dim, self.num)

    @property
    @override
    def copies(self) -> int:
        return self.num

    @override
    def flops(self, dim: int, length: int) -> int:
        return self.num * self.layers[0].flops(dim, length) + 2 * length * dim * self.num

    @override
    def active_flops(self, dim: int, length: int) -> int:
        needed = self.active if self.kind == "channel" else self.num
        return needed * self.layers[0].active_flops(dim, length) + 2 * length * dim * self.num

    @override
    def build(self, dim: int, max_length: int) -> "Experts":
        experts = [self.layers[0].build(dim, max_length) for _ in range(self.num)]
        return Experts(experts, Router(dim, self.num, self.active))


def check_choice(config: LayerConfig, num: int, active: int) -> None:
    """Refuse, in ``__post_init__``, to choose more experts than there are: ArchlabError names layer, knobs and values."""
    if active > num:
        raise ArchlabError(f"{config.name}(num={num}, active={active}): active must be at most num")


class Experts(nn.Module):
    """Copies of a layer behind a router, built by :class:`ExpertsConfig`."""

    def __init__(self, experts: list[nn.Module], router: Router) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.router = router

    def forward(self, x_bld: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        return _weighted(self.router(x_bld), [expert(x_bld) for expert in self.experts])

    def init_state(self, batch_size: int) -> State:
        """States of its parts before the first token."""
        return init_states(self.experts, batch_size)

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        """One token (B, D) and the state to the output (B, D) and the next state."""
        outputs, state = step_each(self.experts, x_bd, state)
        return _weighted(self.router(x_bd), outputs), state


def _weighted(weights: Tensor, outputs: list[Tensor]) -> Tensor:
    """The sum of outputs (..., D) by their weights (..., experts)."""
    first, *rest = (weight[..., None] * y for weight, y in zip(weights.unbind(-1), outputs, strict=True))
    return sum(rest, first)
