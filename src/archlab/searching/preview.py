"""The forecast of a search: the size of the space, examples with their costs, and the time of each rung."""

from dataclasses import asdict, dataclass
from typing import Any

from archlab.mad.estimate import estimate
from archlab.mad.plan import make_plan
from archlab.mad.preview import check_can_compute
from archlab.searching.analysis import as_typed
from archlab.searching.costs import COSTS
from archlab.searching.proposers import Random
from archlab.searching.search import SearchPlan
from archlab.searching.space import Size

EXAMPLES = 4
"""Architectures that are shown, and whose time is estimated for all."""


@dataclass(frozen=True)
class RungPreview:
    """The forecast of one protocol."""

    protocol: str
    architectures: int
    trials: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class SearchPreview:
    """The forecast of a search, as if nothing were stored."""

    space: str
    size: Size
    examples: tuple[dict[str, Any], ...]
    """Members drawn at random, with their costs."""
    rungs: tuple[RungPreview, ...]
    """The last one with the winner's and the consensus' second measurement."""
    num_workers: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "space": self.space,
            "size": self.size.number,
            "exact": self.size.exact,
            "examples": list(self.examples),
            "rungs": [asdict(one) for one in self.rungs],
            "workers": self.num_workers,
            "seconds": sum(one.seconds for one in self.rungs),
        }


def preview_search(plan: SearchPlan, num_workers: int) -> SearchPreview:
    """Foresee a search from a few random members."""
    space = plan.space
    drawn = [one.architecture for one in Random(space, plan.seed).propose([], EXAMPLES)]
    size = space.size
    rungs = []
    for number, protocol in zip(plan.numbers(), plan.rungs, strict=True):
        trials = make_plan(protocol, drawn, plan.device).trials()
        check_can_compute(trials)
        found = estimate(trials, num_workers)
        asked = min(number, size.number) + (3 if protocol is plan.protocol else 0)
        times = asked / len(drawn)
        rungs.append(RungPreview(protocol.name, asked, round(times * len(trials)), times * found.flops, times * found.seconds))
    costs = [
        {"architecture": str(as_typed(value, space.layer_defaults))}
        | {name: cost.of(value, space.dim, space.length) for name, cost in COSTS.items()}
        for value in drawn
    ]
    return SearchPreview(space.name, size, tuple(costs), tuple(rungs), num_workers)
