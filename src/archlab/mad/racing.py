"""The policy of a protocol's run: which grid points are worth computing, as results come in.

``exact`` leaves out what cannot change a score, see :mod:`archlab.mad.selection`. ``halving`` also drops grid points on
their way whose validation loss falls behind: asynchronous successive halving (arXiv 1810.05934, algorithm 2) with the grid
points of a group one after the other, so that which are dropped does not depend on timing.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

from typing_extensions import override

from archlab.jobs.executor import Thresholds
from archlab.jobs.policy import Policy
from archlab.mad.selection import grid_group, grid_groups, solves
from archlab.mad.trial import AnyResult, Trial, TrialResult, alike
from archlab.store.record import RACED, SETTLED

Race = Literal["exact", "halving", "off"]
RUNGS = (1 / 8, 3 / 8)
"""Fractions of the steps after which the grid points of a group are compared."""
ETA = 3
"""One of this many grid points at a rung goes on."""


class Racing(Policy[Trial, TrialResult]):
    """Decides for the trials of one run."""

    def __init__(self, trials: Iterable[Trial], race: Race, population: int = 1) -> None:
        """Prepare for a run of these trials, the stored ones included, of which a worker trains up to ``population`` together."""
        self.race = race
        self.settled = RACED if race == "halving" else SETTLED
        self.whole_results = race == "halving"  # whose rungs are points of the curves
        self.group_size = population
        groups = grid_groups((trial, None) for trial in trials)
        self._groups = {name: [trial for trial, _ in group] for name, group in groups.items()}
        self._results: dict[str, Any] = {}

    @override
    def observe(self, job: Trial, result: AnyResult) -> list[Trial]:
        self._results[job.key] = result
        if self.race == "off" or not solves(job, result):
            return []
        group = self._groups[grid_group(job)]
        return [other for other in group[group.index(job) + 1 :] if other.key not in self._results]

    @override
    def order(self, waiting: Mapping[str, Trial], running: Collection[Trial]) -> list[Trial]:
        # A grid point may turn out not to be needed while another of its group runs: it starts where nothing else is left
        # to do, and with halving not at all.
        if self.race == "off":
            return list(waiting.values())
        busy = {grid_group(trial) for trial in running}
        first: list[Trial] = []
        later: list[Trial] = []
        for trial in waiting.values():
            group = grid_group(trial)
            (later if group in busy else first).append(trial)
            busy.add(group)
        return first if self.race == "halving" else first + later

    @override
    def thresholds(self, job: Trial) -> Thresholds:
        if self.race != "halving":
            return {}
        group = self._groups[grid_group(job)]
        known = [self._results[other.key] for other in group[: group.index(job)] if other.key in self._results]
        # What diverged later leads nowhere, however low its loss had been: it must not stand in the way of others.
        before = [result for result in known if result.status != "diverged"]
        found: dict[int, float] = {}
        for step in rungs(job):
            losses = sorted(point.metrics.loss for result in before for point in result.curve if point.step == step)
            going_on = max((len(losses) + 1) // ETA, 1)
            if len(losses) >= going_on:
                found[step] = losses[going_on - 1]
        return found

    @override
    def group(self, job: Trial) -> Hashable:
        return alike(job)


def rungs(trial: Trial) -> Sequence[int]:
    """The evaluated steps at which a trial is compared with its grid group: the first at or after each fraction."""
    steps = sorted(trial.recipe.evaluation_steps(trial.setting.num_train_examples))
    return sorted({next(step for step in steps if step >= fraction * trial.num_steps) for fraction in RUNGS} - {steps[-1]})
