"""Which trials of a run are worth computing, as results come in.

``exact`` leaves out what cannot change a score, see :mod:`archlab.mad.selection`. ``halving`` also drops siblings on
their way whose validation loss falls behind: asynchronous successive halving (arXiv 1810.05934, algorithm 2) with siblings
one after the other, so that which are dropped does not depend on timing.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from archlab.mad.selection import Siblings, grid_order, siblings, solves
from archlab.mad.train import evaluation_steps
from archlab.mad.trial import Hurdles, Trial, TrialResult
from archlab.store.record import RACED, SETTLED, Status

Race = Literal["exact", "halving", "off"]
RUNGS = (1 / 8, 3 / 8)
"""Shares of the steps after which siblings are compared."""
ETA = 3
"""Of so many siblings at a rung, one goes on."""


class Racing:
    """Decides for the trials of one run. Results must be told in any order, each once."""

    def __init__(self, trials: Iterable[Trial], race: Race) -> None:
        """Args: every trial of the run, the stored ones included, and the kind of race."""
        self.race = race
        self.settled: tuple[Status, ...] = RACED if race == "halving" else SETTLED
        """The statuses of trials that this race is through with."""
        self._siblings: dict[Siblings, list[Trial]] = defaultdict(list)
        for trial in trials:
            self._siblings[siblings(trial)].append(trial)
        for group in self._siblings.values():
            group.sort(key=grid_order)
        self._results: dict[str, TrialResult] = {}

    def told(self, trial: Trial, result: TrialResult) -> list[Trial]:
        """Take in a result; the trials without one that need none any more."""
        self._results[trial.key] = result
        if self.race == "off" or not solves(trial, result):
            return []
        group = self._siblings[siblings(trial)]
        return [other for other in group[group.index(trial) + 1 :] if other.key not in self._results]

    def order(self, waiting: Mapping[str, Trial], in_flight: Collection[Trial]) -> list[Trial]:
        """The trials that may start now, in the order in which they should.

        A sibling of one that is in flight may turn out not to be needed: it starts where nothing else is left to do,
        and with ``halving`` not at all.
        """
        if self.race == "off":
            return list(waiting.values())
        busy = {siblings(trial) for trial in in_flight}
        first: list[Trial] = []
        later: list[Trial] = []
        for trial in waiting.values():
            group = siblings(trial)
            (later if group in busy else first).append(trial)
            busy.add(group)
        return first if self.race == "halving" else first + later

    def hurdles(self, trial: Trial) -> Hurdles:
        """The highest validation loss at each rung with which the trial goes on."""
        if self.race != "halving":
            return {}
        group = self._siblings[siblings(trial)]
        known = [self._results[other.key] for other in group[: group.index(trial)] if other.key in self._results]
        # What diverged later leads nowhere, however low its loss had been: it must not stand in the way of others.
        before = [result for result in known if result.status != "diverged"]
        found: dict[int, float] = {}
        for step in rungs(trial):
            losses = sorted(point.metrics.loss for result in before for point in result.curve if point.step == step)
            going_on = max((len(losses) + 1) // ETA, 1)
            if len(losses) >= going_on:
                found[step] = losses[going_on - 1]
        return found


def rungs(trial: Trial) -> Sequence[int]:
    """The evaluated steps at which a trial is compared with its siblings: the first at or after each share."""
    steps = sorted(evaluation_steps(trial.recipe, trial.num_steps, trial.setting.num_train_examples))
    return sorted({next(step for step in steps if step >= share * trial.num_steps) for share in RUNGS} - {steps[-1]})
