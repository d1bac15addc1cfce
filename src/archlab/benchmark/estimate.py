"""What a plan will cost: FLOPs, and seconds on this machine from timing a few real training steps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from archlab.training.trial import Trial

_TIMED_TOKENS = 4096
"""Tokens of a timed batch: enough to reach the usual speed, few enough to be quick at any width."""


@dataclass(frozen=True)
class Estimate:
    """What a plan will cost if nothing stops early."""

    trials: int
    flops: float
    """Training FLOPs, 3 x forward, of all trials."""
    seconds: float
    """Wall time on this machine, with so many workers."""


def estimate(trials: Sequence[Trial], num_workers: int) -> Estimate:
    """Estimate a plan's cost by timing training steps of each architecture on its cheapest setting of each task.

    Times scale with FLOPs from the timed setting to the others, and include the evaluations. Early stopping is
    not foreseen, so a run usually takes less.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have it
    try:
        speeds: dict[tuple[str, str, int], float] = {}
        for trial in sorted(trials, key=lambda t: t.setting.input_length * t.setting.vocab_size):
            kind = (str(trial.architecture), trial.setting.name, trial.dim)
            if kind not in speeds:
                speeds[kind] = _flops_per_second(trial)
    finally:
        torch.set_num_threads(threads)
    seconds = sum(_all_flops(trial) / speeds[str(trial.architecture), trial.setting.name, trial.dim] for trial in trials)
    return Estimate(len(trials), sum(trial.flops for trial in trials), seconds / max(min(num_workers, len(trials)), 1))


def _all_flops(trial: Trial) -> float:
    """Training and evaluation."""
    recipe = trial.recipe
    evaluations = recipe.evaluations or trial.num_steps // recipe.steps_per_epoch(trial.setting.num_train_examples)
    trained = recipe.num_examples(trial.setting.num_train_examples)
    return trial.flops * (1 + (evaluations + 1) * recipe.num_evaluation / (3 * trained))


def _flops_per_second(trial: Trial) -> float:
    import torch

    from archlab.tasks import sample
    from archlab.training.train import build_model, flushed_denormals, make_optimizer, training_step

    batch = max(1, min(trial.recipe.batch_size, _TIMED_TOKENS // trial.setting.input_length))
    inputs, targets = (torch.from_numpy(x).to(trial.device) for x in sample(trial.setting, "train", batch, trial.seed))
    model = build_model(trial)
    optimizer = make_optimizer(model, trial.recipe, trial.learning_rate, trial.weight_decay)
    times = []
    with flushed_denormals():
        for _ in range(4):  # the first is not like the others
            started = time.perf_counter()
            training_step(model, optimizer, inputs, targets, trial.recipe).item()
            times.append(time.perf_counter() - started)
    per_example = trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples)
    return per_example * batch / min(times[1:])
