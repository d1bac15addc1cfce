"""Trainings that take no time, for tests of the store and the scheduler."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from archlab.errors import ArchlabError
from archlab.machine import Ceilings
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.tasks import setting
from tests.jobs.thread_executor import ThreadExecutor
from tests.synthetic_records import plan, result

FAILING_SEED = 13


def make_trials(n: int, start: int = 0) -> list[Trial]:
    """Trials that differ in their seeds, which count up from ``start``."""
    return plan(["mlp"], [setting("compression")], seeds=range(start, start + n))


@dataclass(frozen=True)
class LoggedTraining:
    """Writes every seed that it trains into a log, with its process, a line each, before it sleeps."""

    log: Path
    seconds: float = 0.05

    def __call__(self, trial, on_progress, thresholds=None) -> TrialResult:
        with self.log.open("a") as file:
            file.write(f"{trial.seed} {os.getpid()}\n")
        if trial.seed == FAILING_SEED:
            raise ValueError("unlucky")
        on_progress(Progress(1, 2, 10.0, None))
        time.sleep(self.seconds)
        return result(trial, [1, 2, trial.seed % 5], curve=[(500, 0.25), (1000, 0.5)])

    def seeds(self) -> list[int]:
        """Every training so far, in order."""
        return [seed for seed, _ in self._lines()]

    def workers(self) -> list[int]:
        """The process of every training so far, in order."""
        return [pid for _, pid in self._lines()]

    def _lines(self) -> list[tuple[int, int]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(seed), int(pid)) for seed, pid in map(str.split, lines)]


def each(train, trials, on_progress, thresholds) -> Iterator[tuple[int, TrialResult]]:
    """Trials that are submitted together, one after the other through a function that trains one."""
    for place, trial in enumerate(trials):
        yield place, train(trial, partial(on_progress, place), thresholds[place])


@dataclass(frozen=True)
class PoliteTraining:
    """Says that it runs, and ends when it is asked to, leaving a note."""

    note: Path

    def __call__(self, trials, on_progress, thresholds) -> Iterator[tuple[int, TrialResult]]:
        asked = []
        signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
        on_progress(0, Progress(1, 2, 10.0, None))
        while not asked:
            time.sleep(0.01)
        self.note.write_text("kept")
        raise ArchlabError("asked to end")
        yield


def made_up_speeds(job, executor):
    """Stands in for :func:`archlab.mad.estimate.measure`: 40 % of 100 GFLOP/s for every trial."""
    return [4e10 if isinstance(job, Trial) else Ceilings(gemm=1e11, copy=1e10)]


def threads(train, num_workers: int = 2) -> ThreadExecutor:
    """An executor of threads, with a function that trains one job."""
    return ThreadExecutor(partial(each, train), num_workers)
