"""How far a run is: counts, time left, speed, best scores so far. Fed by the runner's events, shown by the live view."""

import time
from collections import defaultdict
from collections.abc import Sequence

from archlab.benchmark.runner import Event, TrialFailed, TrialFinished, TrialProgressed, TrialReused, TrialStarted
from archlab.training.trial import Progress, Trial


class RunProgress:
    """The state of a run.

    Time left is the sum over what remains of the expected duration of each trial: the mean of finished trials of the same
    architecture and task where there are any, else by FLOPs at the speed of the architecture, or of all, so far.
    """

    def __init__(self, trials: Sequence[Trial], num_workers: int) -> None:
        self.total = len({trial.key for trial in trials})
        self.num_workers = num_workers
        self.reused = self.computed = self.failed = self.diverged = 0
        self.running: dict[Trial, tuple[float, Progress | None]] = {}
        self.waiting = {trial.key: trial for trial in trials}
        self.best: dict[tuple[str, str], float] = {}
        """Best test score so far by architecture's label and task."""
        self._durations: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._speeds: dict[str, list[float]] = defaultdict(list)

    @property
    def done(self) -> int:
        """Trials that need no more work."""
        return self.reused + self.computed + self.failed

    @property
    def examples_per_second(self) -> float:
        """Training sequences a second, all running trials together."""
        return sum(progress.examples_per_second for _, progress in self.running.values() if progress)

    def update(self, event: Event) -> None:
        """Take in what happened."""
        match event:
            case TrialReused(trial, result):
                self.reused += 1
                self._settle(trial, result.score, result.status == "diverged")
            case TrialStarted(trial):
                self.waiting.pop(trial.key, None)
                self.running[trial] = (time.monotonic(), None)
            case TrialProgressed(trial, progress):
                if trial in self.running:
                    self.running[trial] = (self.running[trial][0], progress)
            case TrialFinished(trial, result):
                self.computed += 1
                seconds = time.monotonic() - self.running[trial][0]
                self._durations[str(trial.architecture), trial.setting.name].append(seconds)
                self._speeds[str(trial.architecture)].append(seconds / trial.flops)
                self._settle(trial, result.score, result.status == "diverged")
            case TrialFailed(trial):
                self.failed += 1
                self._forget(trial)
            case _:
                pass

    def seconds_left(self) -> float | None:
        """Expected wall time until the run ends; None until a first trial has finished or reported."""
        now = time.monotonic()
        left = 0.0
        for trial, (started, progress) in self.running.items():
            expected = self._expected(trial)
            if progress is not None and progress.step:
                by_step = (now - started) * progress.num_steps / progress.step
                expected = by_step if expected is None else min(expected, by_step)
            if expected is None:
                return None
            left += max(expected - (now - started), 0.0)
        for trial in self.waiting.values():
            expected = self._expected(trial)
            if expected is None:
                return None
            left += expected
        return left / max(min(self.num_workers, len(self.running) + len(self.waiting)), 1)

    def _expected(self, trial: Trial) -> float | None:
        durations = self._durations.get((str(trial.architecture), trial.setting.name))
        if durations:
            return sum(durations) / len(durations)
        speeds = self._speeds.get(str(trial.architecture)) or [x for own in self._speeds.values() for x in own]
        return trial.flops * sum(speeds) / len(speeds) if speeds else None

    def _settle(self, trial: Trial, score: float, diverged: bool) -> None:
        self._forget(trial)
        self.diverged += diverged
        cell = (trial.architecture.label, trial.setting.name)
        self.best[cell] = max(score, self.best.get(cell, 0.0))

    def _forget(self, trial: Trial) -> None:
        self.running.pop(trial, None)
        self.waiting.pop(trial.key, None)
