"""Which grid point of an architecture, setting and seed is scored, and when that is known.

The trials that differ in their grid point alone are a *grid group*. The first of them in grid order that solves the setting,
which is to say reaches the recipe's ``stop_accuracy`` on the selection split, is chosen; if none does, the one that did best
there. So nothing that comes after a trial that solved can change a score, and need not be computed.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from archlab.mad.trial import AnyResult, Kind, Metrics, Trial

T = TypeVar("T")
GridGroup = tuple[Kind, int]
"""Equal for the trials of one grid group, and for no others."""
Ended = tuple[Trial, AnyResult]


def grid_group(trial: Trial) -> GridGroup:
    """The grid group that a trial belongs to."""
    return trial.kind, trial.seed


def grid_order(trial: Trial) -> tuple[float, float]:
    """Sort key within a grid group: larger learning rates first, for they solve sooner, then smaller weight decays."""
    return (-trial.learning_rate, trial.weight_decay)


def grid_groups(trials: Iterable[tuple[Trial, T]]) -> dict[GridGroup, list[tuple[Trial, T]]]:
    """Trials, each with something of its own, by grid group and there in grid order."""
    groups: dict[GridGroup, list[tuple[Trial, T]]] = defaultdict(list)
    for one in trials:
        groups[grid_group(one[0])].append(one)
    for group in groups.values():
        group.sort(key=lambda one: grid_order(one[0]))
    return groups


def metric(trial: Trial, metrics: Metrics) -> float:
    """The number that the trial's recipe scores by, in [0, 1]; chance where it is not a number."""
    value: float = getattr(metrics, trial.metric)
    return value if math.isfinite(value) else trial.setting.chance


def solves(trial: Trial, result: AnyResult) -> bool:
    """Whether the weights that are scored reach the recipe's ``stop_accuracy`` on the selection split."""
    return result.status == "finished" and metric(trial, result.selected) >= trial.recipe.stop_accuracy


def choose(ended: Sequence[Ended | None]) -> Ended | None:
    """The trial of a grid group that is scored, or None as long as another one may still be.

    Takes all trials of the group in grid order, None for those without a result.
    """
    known: list[Ended] = []
    for trial in ended:
        if trial is None:
            return None
        if solves(*trial):
            return trial
        known.append(trial)
    return max(known, key=_preference, default=None)


def _preference(ended: Ended) -> tuple[bool, float, float]:
    """Sort key: by score, then by loss; a trial that was dropped on the way comes last."""
    trial, result = ended
    loss = result.selected.loss
    return result.status != "dropped", metric(trial, result.selected), -loss if math.isfinite(loss) else -math.inf
