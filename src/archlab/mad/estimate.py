"""Cost of trials: FLOPs, and seconds on this machine from training steps measured on it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from archlab.machine import single_thread
from archlab.mad.speed import cheapest, family, flops_per_second, kind, remembered, step_seconds, timed_flops
from archlab.mad.trial import Trial


@dataclass(frozen=True)
class Estimate:
    """Cost of trials if nothing stops early."""

    trials: int
    flops: float
    """Training FLOPs, 3 x forward, of all trials."""
    seconds: float
    """Wall time on this machine, on all workers together."""
    measured: str | None
    """Time at which `archlab bench` measured the speeds (UTC); None if steps were timed for the estimate."""


def estimate(trials: Sequence[Trial], num_workers: int) -> Estimate:
    """Estimate the cost of trials from the speed of each architecture on its cheapest setting of each task.

    Speeds are those that `archlab bench` has measured on this machine; where it has none, a few steps are timed now.
    Times scale with FLOPs from the timed setting to the others, and include the evaluations. Early stopping and racing
    are not foreseen, so a run usually takes less.
    """
    timed = cheapest(trials)
    measurement = remembered()
    known = measurement.speeds if measurement else {}
    with single_thread():
        speeds = {name: known.get(kind(trial)) or flops_per_second(trial) for name, trial in timed.items()}
    seconds = sum(all_flops(trial) / speeds[family(trial)] for trial in trials)
    return Estimate(
        trials=len(trials),
        flops=sum(trial.flops for trial in trials),
        seconds=seconds / max(min(num_workers, len(trials)), 1),
        measured=measurement.when if measurement and timed and all(kind(one) in known for one in timed.values()) else None,
    )


@dataclass(frozen=True)
class Compilation:
    """Cost and gain of compiling the training step (``compiled`` of a recipe)."""

    seconds: float
    """Seconds that every worker compiles; less where PyTorch finds what it compiled before on disk."""
    saved: float
    """Seconds of training that all workers together save; negative if compiled steps are slower."""
    num_workers: int

    @property
    def pays(self) -> bool:
        """Whether a run is shorter for it."""
        return self.saved > self.num_workers * self.seconds


def compilation(trials: Sequence[Trial], num_workers: int) -> Compilation | None:
    """Compile each kind of step once and time it beside the eager one; None if no recipe asks for it."""
    asking = [trial for trial in trials if trial.recipe.compiled]
    if not asking:
        return None
    times = _compared(asking, compiled=False)
    return Compilation(
        seconds=sum(time.preparing for time in times.values()),
        saved=sum(trial.flops * (times[family(trial)].without - times[family(trial)].step) for trial in asking),
        num_workers=max(min(num_workers, len(trials)), 1),
    )


def times_faster_by_kernels(trials: Sequence[Trial]) -> float | None:
    """How many times faster eager steps are by the kernels that recipes ask for than by PyTorch's operations, over all the
    trials; None if no recipe asks for any. Each kind of step is timed both ways."""
    asking = [trial for trial in trials if trial.recipe.kernels != "torch"]
    if not asking:
        return None
    times = _compared([replace(trial, recipe=replace(trial.recipe, compiled=False)) for trial in asking], kernels="torch")
    without = sum(trial.flops * times[family(trial)].without for trial in asking)
    return without / sum(trial.flops * times[family(trial)].step for trial in asking)


class _Times(NamedTuple):
    """Times of the training steps of one family."""

    preparing: float
    """Seconds that the first step takes longer than others."""
    step: float
    """Seconds a FLOP."""
    without: float
    """Seconds a FLOP with the other fields of the recipe."""


def _compared(trials: Sequence[Trial], **without: Any) -> dict[Hashable, _Times]:
    """Time a step of each family as it is, and with these fields of the recipe instead."""
    times = {}
    with single_thread():
        for name, trial in cheapest(trials).items():
            first, *steps = step_seconds(trial)
            others = step_seconds(replace(trial, recipe=replace(trial.recipe, **without)))[1:]
            flops = timed_flops(trial)
            times[name] = _Times(first - min(steps), min(steps) / flops, min(others) / flops)
    return times


def all_flops(trial: Trial) -> float:
    """FLOPs of training and evaluation."""
    recipe = trial.recipe
    evaluations = recipe.evaluations or trial.num_steps // recipe.steps_per_epoch(trial.setting.num_train_examples)
    trained = recipe.num_examples(trial.setting.num_train_examples)
    return trial.flops * (1 + (evaluations + 1) * recipe.num_evaluation / (3 * trained))
