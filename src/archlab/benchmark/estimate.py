"""What a plan will cost: FLOPs, and seconds on this machine from training steps measured on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from archlab.benchmark.speed import cheapest, flops_per_second, remembered, single_thread, step_seconds, timed_flops
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
        speeds = {_family(trial): known.get(name) or flops_per_second(trial) for name, trial in kinds.items()}
    seconds = sum(all_flops(trial) / speeds[_family(trial)] for trial in trials)
    return Estimate(
        trials=len(trials),
        flops=sum(trial.flops for trial in trials),
        seconds=seconds / max(min(num_workers, len(trials)), 1),
        measured=measurement.when if measurement and kinds and all(name in known for name in kinds) else None,
    )


@dataclass(frozen=True)
class Compilation:
    """What compiling the training step costs and gains (``compiled`` of a recipe)."""

    seconds: float
    """Of compiling, in every worker; less where PyTorch finds what it compiled before on disk."""
    saved: float
    """Seconds of training that all workers together save; negative if compiled steps are slower."""
    num_workers: int

    @property
    def pays(self) -> bool:
        """Whether a run is shorter for it."""
        return self.saved > self.num_workers * self.seconds


def compilation(trials: Sequence[Trial], num_workers: int) -> Compilation | None:
    """Compile each kind of step once and time it beside the eager one; None if no recipe asks for it."""
    kinds = cheapest([trial for trial in trials if trial.recipe.compiled])
    if not kinds:
        return None
    seconds, saved_a_flop = 0.0, {}
    with single_thread():
        for trial in kinds.values():
            first, *compiled = step_seconds(trial)
            eager = min(step_seconds(replace(trial, recipe=replace(trial.recipe, compiled=False)))[1:])
            seconds += first - min(compiled)
            saved_a_flop[_family(trial)] = (eager - min(compiled)) / timed_flops(trial)
    saved = sum(trial.flops * saved_a_flop[_family(trial)] for trial in trials if trial.recipe.compiled)
    return Compilation(seconds, saved, max(min(num_workers, len(trials)), 1))


def _family(trial: Trial) -> tuple[str, str, int]:
    """Trials whose speed is taken to be that of one of them."""
    return str(trial.architecture), trial.setting.name, trial.dim


def all_flops(trial: Trial) -> float:
    """Training and evaluation."""
    recipe = trial.recipe
    evaluations = recipe.evaluations or trial.num_steps // recipe.steps_per_epoch(trial.setting.num_train_examples)
    trained = recipe.num_examples(trial.setting.num_train_examples)
    return trial.flops * (1 + (evaluations + 1) * recipe.num_evaluation / (3 * trained))
