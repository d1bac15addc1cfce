"""Compute that the trials of a plan would take if all ran to their end, and compute that was spent.

Only trials with a result count: not attempts that failed, nor trials that a race started and stopped (at most
one a worker for each setting that is solved).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from archlab.architectures.stored import is_available
from archlab.mad.selection import GridGroup, grid_group, grid_order, solves
from archlab.mad.trial import AnyResult, Trial
from archlab.tasks.stored import is_known

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


def spending(results: Iterable[tuple[Trial, AnyResult | None]]) -> Spending:
    """The compute that trials have cost, from those with a result; those that cannot be built here have no FLOPs."""
    groups: dict[GridGroup, list[tuple[Trial, AnyResult | None]]] = defaultdict(list)
    for trial, result in results:
        groups[grid_group(trial)].append((trial, result))
    through: list[tuple[Trial, AnyResult | None]] = []
    for group in groups.values():
        solved = False
        for trial, result in sorted(group, key=lambda one: grid_order(one[0])):
            if result is not None or solved:
                through.append((trial, result))
            solved = solved or (result is not None and solves(trial, result))
    run = [(trial, result) for trial, result in through if result is not None]
    return Spending(
        trials=len(through),
        trials_started=len(run),
        dropped=sum(result.status == "dropped" for _, result in run),
        steps=sum(trial.num_steps for trial, _ in through),
        steps_spent=sum(result.steps for _, result in run),
        flops=sum(_flops(trial) for trial, _ in through),
        flops_spent=sum(_flops(trial) * result.steps / trial.num_steps for trial, result in run),
    )


def _flops(trial: Trial) -> float:
    return trial.flops if is_available(trial.architecture) and is_known(trial.setting) else 0.0
