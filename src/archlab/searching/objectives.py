"""Objectives: the scores that a search makes large, and the costs that it makes small."""

from collections.abc import Sequence
from dataclasses import dataclass

from archlab.errors import ArchlabError, unknown
from archlab.mad.architecture_score import ArchitectureScore
from archlab.mad.bootstrap import Interval
from archlab.mad.protocol import Protocol
from archlab.searching.costs import COSTS
from archlab.tasks import registry

MEAN = "mad"
"""The objective that is the mean over the tasks."""


@dataclass(frozen=True)
class Objective:
    """A number of every evaluated architecture."""

    name: str
    """``mad``, the name of a task, or that of a cost."""

    @property
    def larger_is_better(self) -> bool:
        """Whether it is a score."""
        return self.name not in COSTS

    def value(self, score: ArchitectureScore, dim: int, length: int) -> float | None:
        """The score, of complete results only, or the cost at a width and a length; None if there is none."""
        if self.name in COSTS:
            return COSTS[self.name].of(score.architecture, dim, length)
        if self.name == MEAN:
            return score.score if score.complete else None
        task = next(task for task in score.tasks if task.task == self.name)
        return task.score if task.complete else None

    def interval(self, score: ArchitectureScore) -> Interval | None:
        """The interval of a score; None of a cost, which is known."""
        if self.name in COSTS:
            return None
        if self.name == MEAN:
            return score.interval
        return next(task.interval for task in score.tasks if task.task == self.name)

    def loss(self, value: float) -> float:
        """The number to be made small."""
        return -value if self.larger_is_better else value


def read_objectives(names: Sequence[str], protocol: Protocol) -> tuple[Objective, ...]:
    """Objectives by name: ``mad``, a task of the protocol by name or short name, or a cost.

    Refuses others, none, and costs alone, which need no training.
    """
    shorts = {registry()[task].short: task for task in protocol.tasks if task in registry()}
    known = {MEAN: MEAN, **{task: task for task in protocol.tasks}, **shorts, **{cost: cost for cost in COSTS}}
    for name in names:
        if name not in known:
            raise unknown("objective", name, known)
    found = tuple(Objective(name) for name in dict.fromkeys(known[name] for name in names))
    if not any(one.larger_is_better for one in found):
        raise ArchlabError(f"objectives={list(names)}: none is a score: add mad, or a task")
    return tuple(sorted(found, key=lambda one: not one.larger_is_better))  # the first score decides on the winner
