"""How far a run is: counts, time left, speed, best scores so far. Fed by the runner's events, shown by the live view."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archlab.mad.runner import (
    Event,
    RunInterrupted,
    TrialFailed,
    TrialFinished,
    TrialProgressed,
    TrialReused,
    TrialsSkipped,
    TrialStarted,
)
from archlab.mad.trial import Progress, Trial

Kind = tuple[str, str]
"""Architecture and task: trials of one kind take about the same time per FLOP."""


@dataclass
class Running:
    """A trial that a worker has been given; times in seconds of the progress's clock."""

    trial: Trial
    since: float
    first: tuple[float, int] | None = None
    """Time and step of the first report: what came before includes the start of the worker."""
    reported: float = 0.0
    progress: Progress | None = None

    def report(self, now: float, progress: Progress) -> None:
        """Take in what the trial says about itself."""
        self.first = self.first or (now, progress.step)
        self.reported, self.progress = now, progress

    def seconds_per_step(self) -> float | None:
        """Pace between the first and the last report, evaluations included; None before the first."""
        if self.progress is None or self.first is None:
            return None
        if self.progress.step > self.first[1]:
            return (self.reported - self.first[0]) / (self.progress.step - self.first[1])
        if self.progress.examples_per_second <= 0:
            return None
        return min(self.trial.recipe.batch_size, self.trial.setting.num_train_examples) / self.progress.examples_per_second


class RunProgress:
    """The state of a run.

    Time left is what remains of the running trials at their own pace, and of the others by FLOPs: at the pace of finished
    trials of the same architecture and task where there are any, else of the same architecture, else of all so far.
    Finished trials count with the time they took, so that stopping early is foreseen once it has been seen.
    """

    def __init__(self, trials: Sequence[Trial], num_workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: the trials of the run, how many run at once, and what tells the time in seconds."""
        self.num_workers = num_workers
        self.reused = self.computed = self.failed = self.diverged = self.skipped = 0
        self.running: dict[str, Running] = {}
        self.waiting = {trial.key: trial for trial in trials}
        self.total = len(self.waiting)
        self.best: dict[tuple[str, str], float] = {}
        """Best test score so far by architecture's label and task."""
        self._clock = clock
        self._flops = {key: trial.flops for key, trial in self.waiting.items()}
        self._kinds = {key: (str(trial.architecture), trial.setting.name) for key, trial in self.waiting.items()}
        self._waiting_flops: dict[Kind, float] = defaultdict(float)
        for key in self.waiting:
            self._waiting_flops[self._kinds[key]] += self._flops[key]
        self._finished: dict[Kind, list[float]] = defaultdict(list)
        """Seconds per FLOP of the trials that this run has finished."""

    @property
    def done(self) -> int:
        """Trials that need no more work."""
        return self.reused + self.computed + self.failed + self.skipped

    @property
    def examples_per_second(self) -> float:
        """Training sequences a second, all running trials together."""
        return sum(running.progress.examples_per_second for running in self.running.values() if running.progress)

    def update(self, event: Event) -> None:
        """Take in what happened."""
        match event:
            case TrialReused(trial, result):
                self.reused += 1
                self._settle(trial, result.score, result.status == "diverged")
            case TrialStarted(trial):
                self._forget(trial)
                self.running[trial.key] = Running(trial, self._clock())
            case TrialProgressed(trial, progress):
                if trial.key in self.running:
                    self.running[trial.key].report(self._clock(), progress)
            case TrialFinished(trial, result):
                self.computed += 1
                self._finished[self._kinds[trial.key]].append(result.wall_seconds / self._flops[trial.key])
                self._settle(trial, result.score, result.status == "diverged")
            case TrialFailed(trial):
                self.failed += 1
                self._forget(trial)
            case TrialsSkipped(trials):
                self.skipped += len(trials)
                for trial in trials:
                    self._forget(trial)
            case RunInterrupted(summary):
                self.computed = summary.computed  # what finished while the run ended has no event of its own
            case _:
                pass

    def seconds_left(self) -> float | None:
        """Expected wall time until the run ends; None until a first trial has finished or reported."""
        paces = self._paces()
        if not paces:
            return None if self.running or self.waiting else 0.0
        running = [self._rest(trial, paces) for trial in self.running.values()]
        waiting = sum(flops * _pace(kind, paces) for kind, flops in self._waiting_flops.items())
        workers = max(min(self.num_workers, len(self.running) + len(self.waiting)), 1)
        return max((sum(running) + waiting) / workers, max(running, default=0.0))

    def _paces(self) -> dict[Kind, list[float]]:
        """Seconds per FLOP by kind: of finished trials, and of running ones where no trial of their kind has finished."""
        paces = {kind: list(found) for kind, found in self._finished.items()}
        for key, running in self.running.items():
            seconds = running.seconds_per_step()
            if seconds is not None and running.progress is not None and self._kinds[key] not in self._finished:
                paces.setdefault(self._kinds[key], []).append(seconds * running.progress.num_steps / self._flops[key])
        return paces

    def _rest(self, running: Running, paces: dict[Kind, list[float]]) -> float:
        now, key = self._clock(), running.trial.key
        kind = self._kinds[key]
        expected = self._flops[key] * _pace(kind, paces) - (now - running.since)
        seconds = running.seconds_per_step()
        if seconds is None or running.progress is None:
            return max(expected, 0.0)
        by_step = max((running.progress.num_steps - running.progress.step) * seconds - (now - running.reported), 0.0)
        # A trial that outlasts those before it has not stopped early as they have.
        return min(by_step, expected) if kind in self._finished and expected > 0 else by_step

    def _settle(self, trial: Trial, score: float, diverged: bool) -> None:
        self._forget(trial)
        self.diverged += diverged
        cell = (trial.architecture.label, trial.setting.name)
        self.best[cell] = max(score, self.best.get(cell, 0.0))

    def _forget(self, trial: Trial) -> None:
        self.running.pop(trial.key, None)
        if self.waiting.pop(trial.key, None):
            self._waiting_flops[self._kinds[trial.key]] -= self._flops[trial.key]


def _pace(kind: Kind, paces: dict[Kind, list[float]]) -> float:
    """Seconds per FLOP to expect: of the kind, else of the architecture, else of all."""
    known = paces.get(kind) or [x for (owner, _), own in paces.items() if owner == kind[0] for x in own]
    known = known or [x for own in paces.values() for x in own]
    return sum(known) / len(known)
