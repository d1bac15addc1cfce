"""Compute that the trials of a plan would take if all ran to their end, and compute that was spent.

Only trials with a result count: not attempts that failed, nor trials that a race started and stopped (at most
one a worker for each setting that is solved).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from archlab.architectures.stored import is_available
from archlab.mad.selection import solves
from archlab.mad.trial import AnyResult, Costs, Kind, Trial
from archlab.tasks.stored import is_known

Ended = tuple[Trial, AnyResult | None]
HALVING_ERROR = 0.001
HALVING_LARGEST_ERROR = 0.022
"""Loss of a task's score by halving against an exhaustive run: mean and largest of 24 task scores of `quick`, as measured by
``benchmarks/racing.py``."""


@dataclass(frozen=True)
class Spending:
    """Totals over the trials that are settled: they have a result, or another grid point has solved their setting."""

    trials: int
    trials_started: int
    dropped: int
    """Number of trials that a race by halving has dropped."""
    steps: int
    steps_spent: int
    flops: float
    flops_spent: float

    @property
    def saved(self) -> float:
        """Fraction of the FLOPs that early stopping and racing have saved, in [0, 1]."""
        return 1 - self.flops_spent / self.flops if self.flops else 0.0


def settled(groups: Iterable[Sequence[Ended]]) -> list[Ended]:
    """The trials of grid groups, each with its result, that have one, or follow one that has solved their setting."""
    found: list[Ended] = []
    for group in groups:
        solved = False
        for trial, result in group:
            if result is not None or solved:
                found.append((trial, result))
            solved = solved or (result is not None and solves(trial, result))
    return found


def spending(groups: Iterable[Sequence[Ended]], costs: Mapping[Kind, Costs]) -> Spending:
    """The compute that trials have cost, from those with a result.

    ``groups`` are those of :func:`archlab.mad.selection.grid_groups`. Kinds without ``costs`` are counted, and have no FLOPs if
    they cannot be built here.
    """
    through = settled(groups)
    flops = {kind: _flops(kind, costs.get(kind)) for kind in {trial.kind for trial, _ in through}}
    run = [(trial, result) for trial, result in through if result is not None]
    return Spending(
        trials=len(through),
        trials_started=len(run),
        dropped=sum(result.status == "dropped" for _, result in run),
        steps=sum(trial.num_steps for trial, _ in through),
        steps_spent=sum(result.steps for _, result in run),
        flops=sum(flops[trial.kind] for trial, _ in through),
        flops_spent=sum(flops[trial.kind] * result.steps / trial.num_steps for trial, result in run),
    )


def _flops(kind: Kind, costs: Costs | None) -> float:
    if costs is not None and costs.flops is not None:
        return kind.training_flops(costs.flops)
    if is_available(kind.architecture) and is_known(kind.setting):
        with suppress(Exception, SystemExit):  # layers may be someone else's
            return kind.flops
    return 0.0
