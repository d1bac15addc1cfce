"""Which grid point of an architecture, setting and seed is scored, and when that is known.

The trials that differ in their grid point alone are *siblings*. The first of them in grid order that solves the setting,
which is to say reaches the recipe's ``stop_accuracy`` on the selection split, is chosen; if none does, the one that did best
there. So nothing that comes after a sibling that solved can change a score, and need not be computed.
"""

import math
from collections.abc import Sequence

from archlab.mad.trial import Metrics, Trial, TrialResult

Siblings = tuple[object, ...]
"""What trials that are siblings, and no others, have in common."""
Ended = tuple[Trial, TrialResult]


def siblings(trial: Trial) -> Siblings:
    """The same for every sibling of a trial."""
    return (trial.architecture, trial.setting, trial.recipe, trial.dim, trial.seed, trial.device)


def grid_order(trial: Trial) -> tuple[float, float]:
    """Sort key of siblings: larger learning rates first, for they solve sooner, then smaller weight decays."""
    return (-trial.learning_rate, trial.weight_decay)


def metric(trial: Trial, metrics: Metrics) -> float:
    """The number that the trial's recipe scores by, in [0, 1]; chance where it is not a number."""
    value = metrics.accuracy if trial.recipe.metric == "accuracy" else metrics.macro_accuracy
    return value if math.isfinite(value) else trial.setting.chance


def solves(trial: Trial, result: TrialResult) -> bool:
    """Whether the weights that are scored reach the recipe's ``stop_accuracy`` on the selection split."""
    return result.status == "finished" and metric(trial, result.selected) >= trial.recipe.stop_accuracy


def choose(ended: Sequence[Ended | None]) -> Ended | None:
    """The sibling that is scored, or None as long as another one may still be.

    Args:
        ended: all siblings in grid order, None for those without a result.
    """
    known: list[Ended] = []
    for sibling in ended:
        if sibling is None:
            return None
        if solves(*sibling):
            return sibling
        known.append(sibling)
    return max(known, key=_preference, default=None)


def _preference(ended: Ended) -> tuple[bool, float, float]:
    """What was dropped on the way comes last, whatever it had reached."""
    trial, result = ended
    loss = result.selected.loss
    return result.status != "dropped", metric(trial, result.selected), -loss if math.isfinite(loss) else -math.inf
