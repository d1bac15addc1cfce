"""What a plan will cost: FLOPs, and seconds on this machine from training steps measured on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from archlab.benchmark.speed import cheapest, flops_per_second, remembered, single_thread
from archlab.training.trial import Trial


@dataclass(frozen=True)
class Estimate:
    """What a plan will cost if nothing stops early."""

    trials: int
    flops: float
    """Training FLOPs, 3 x forward, of all trials."""
    seconds: float
    """Wall time on this machine, with so many workers."""
    measured: str | None
    """When `archlab bench` measured the speeds that this stands on (UTC); None if steps were timed for it now."""


def estimate(trials: Sequence[Trial], num_workers: int) -> Estimate:
    """Estimate a plan's cost from the speed of each architecture on its cheapest setting of each task.

    Speeds are those that `archlab bench` has measured on this machine; where it has none, a few steps are timed now.
    Times scale with FLOPs from the timed setting to the others, and include the evaluations. Early stopping and racing
    are not foreseen, so a run usually takes less.
    """
    kinds = cheapest(trials)
    measurement = remembered()
    known = measurement.speeds if measurement else {}
    with single_thread():
        speeds = {
            (str(trial.architecture), trial.setting.name, trial.dim): known.get(name) or flops_per_second(trial)
            for name, trial in kinds.items()
        }
    seconds = sum(all_flops(trial) / speeds[str(trial.architecture), trial.setting.name, trial.dim] for trial in trials)
    return Estimate(
        trials=len(trials),
        flops=sum(trial.flops for trial in trials),
        seconds=seconds / max(min(num_workers, len(trials)), 1),
        measured=measurement.when if measurement and kinds and all(name in known for name in kinds) else None,
    )


def all_flops(trial: Trial) -> float:
    """Training and evaluation."""
    recipe = trial.recipe
    evaluations = recipe.evaluations or trial.num_steps // recipe.steps_per_epoch(trial.setting.num_train_examples)
    trained = recipe.num_examples(trial.setting.num_train_examples)
    return trial.flops * (1 + (evaluations + 1) * recipe.num_evaluation / (3 * trained))
