"""Speed of training steps on this machine, measured and remembered, and the cost of trials that follows from it."""

import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from archlab.errors import ArchlabError
from archlab.files import cache_folder, write_whole
from archlab.isolation import undone
from archlab.jobs.executor import Executor
from archlab.machine import Device, ceilings, cpu_name, seconds_of, single_thread
from archlab.mad.learner import Examples
from archlab.mad.programs import choose_program
from archlab.mad.train import make_learner
from archlab.mad.trial import Trial
from archlab.tasks import sample
from archlab.training.context import computing

TIMING_SECONDS = 6.0
"""How long steps are timed for an estimate."""
_TIMED_TOKENS = 4096
"""Tokens of a timed batch on a CPU: enough to reach the usual speed, few enough to be quick at any width. A GPU, which launches
fast or slow whatever their number, is given the whole batch."""


def family(trial: Trial) -> Hashable:
    """Architecture, task, width and device: trials of one family have the speed, in FLOP/s, of the cheapest of them."""
    return trial.architecture, trial.setting.name, trial.dim, trial.device


def cheapest(trials: Iterable[Trial]) -> dict[Hashable, Trial]:
    """The trial of each family whose steps are timed for all of it."""
    found: dict[Hashable, Trial] = {}
    for trial in sorted(trials, key=lambda t: t.setting.input_length * t.setting.vocab_size):
        found.setdefault(family(trial), trial)
    return found


def kind(trial: Trial) -> str:
    """Name that the speed of a trial is remembered by: its family, its recipe where that decides the speed, and its code."""
    recipe = trial.recipe
    options = f"{trial.device} {recipe.precision} {recipe.kernels}" + (" compiled" if recipe.compiled else "")
    return f"{trial.architecture} | {trial.setting.name} | width {trial.dim} | {options} | {trial.code}"


def flops_per_second(trial: Trial) -> float:
    """Training FLOP/s of a few real steps of the trial on this process's threads."""
    return timed_flops(trial) / min(step_seconds(trial)[1:])


def timed_flops(trial: Trial) -> float:
    """Training FLOPs of one of the steps that are timed."""
    return trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples) * _timed_batch(trial)


def _timed_batch(trial: Trial) -> int:
    batch = min(trial.recipe.batch_size, trial.setting.num_train_examples)
    return max(1, min(batch, _TIMED_TOKENS // trial.setting.input_length)) if trial.device == "cpu" else batch


@undone()
def step_seconds(trial: Trial) -> list[float]:
    """Seconds of a few real steps in a row; the first compiles, if the recipe says so, and is never like the others."""
    batch = _timed_batch(trial)
    inputs, targets = (torch.from_numpy(x).to(trial.device) for x in sample(trial.setting, "train", batch, trial.seed))
    recipe = trial.recipe
    rows = torch.arange(batch, device=trial.device)
    with computing(recipe.kernels, recipe.precision, trial.device):
        started = time.perf_counter()
        program = choose_program([make_learner(trial, Examples.of(inputs, targets))])
        preparing = time.perf_counter() - started
        first, *others = seconds_of(lambda: program.step([rows]).tolist(), 4)
    return [preparing + first, *others]


def measure(job: Trial | Device, executor: Executor[Any, Any, Any]) -> list[Any]:
    """The answers of :func:`measure_jobs`, the executor's work, from every worker, all busy with the job at once."""
    submitted = [executor.submit([job], lambda *_: None) for _ in range(executor.num_workers)]
    return [future.result() for (future,) in submitted]


def measure_jobs(jobs: Sequence[Trial | Device], on_progress: object, thresholds: object) -> Iterator[tuple[int, Any]]:
    """Measure the ceilings of a device, or the training FLOP/s of a trial; the work of an executor."""
    for index, job in enumerate(jobs):
        yield index, flops_per_second(job) if isinstance(job, Trial) else ceilings(job)


def cache_path() -> Path:
    """The file of measurements: ``archlab/bench.json`` in the user's cache folder."""
    return cache_folder() / "bench.json"


def remember(speeds: dict[str, float]) -> None:
    """Keep speeds for later estimates on this machine; those of other kinds that were measured before are kept.

    Where they cannot be written, that is said on standard error.
    """
    when = datetime.now(UTC).isoformat(timespec="minutes")
    document = {"machine": _machine(), "when": when, "speeds": remembered()[1] | speeds}
    try:
        cache_path().parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache_path(), json.dumps(document, indent=1))
    except (OSError, ArchlabError) as error:
        print(f"the speeds are not kept for estimates: {error}", file=sys.stderr)


def remembered() -> tuple[str | None, dict[str, float]]:
    """The speeds that were measured on this machine with this PyTorch, if any: when (UTC, ISO 8601), and FLOP/s by kind."""
    try:
        document = json.loads(cache_path().read_text(encoding="utf-8"))
        if document["machine"] == _machine():
            return str(document["when"]), {str(name): float(speed) for name, speed in document["speeds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None, {}


def _machine() -> dict[str, Any]:
    return {"host": socket.gethostname(), "cpu": cpu_name(), "torch": version("torch"), "cores": os.cpu_count()}


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

    Speeds are those that `archlab bench` has measured on this machine; where it has none, a few steps are timed now, as long as
    :data:`TIMING_SECONDS` allow; the families left over get the median speed of the others.
    Times scale with FLOPs from the timed setting to the others, and include the evaluations. Early stopping and racing
    are not foreseen, so a run usually takes less.
    """
    timed = cheapest(trials)
    when, known = remembered()
    with single_thread():
        until = time.monotonic() + TIMING_SECONDS
        speeds: dict[Hashable, float] = {}
        for name, trial in timed.items():
            if speed := known.get(kind(trial)) or (flops_per_second(trial) if time.monotonic() < until else None):
                speeds[name] = speed
        usual = statistics.median(speeds.values()) if speeds else 1.0
        speeds = {name: speeds.get(name, usual) for name in timed}
    seconds = sum(all_flops(trial) / speeds[family(trial)] for trial in trials)
    return Estimate(
        trials=len(trials),
        flops=sum(trial.flops for trial in trials),
        seconds=seconds / max(min(num_workers, len(trials)), 1),
        measured=when if timed and all(kind(one) in known for one in timed.values()) else None,
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
    """Seconds that the first step of a family takes longer than others; seconds a FLOP; those with other fields of the recipe."""

    preparing: float
    step: float
    without: float


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
