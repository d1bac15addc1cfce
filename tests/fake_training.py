"""Trainings that take no time, and an executor of threads: what the store and the runner need of the rest."""

import os
import signal
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from archlab.errors import ArchlabError, in_one_line
from archlab.jobs.executor import JobError
from archlab.machine import Ceilings
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.tasks import setting
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


def made_up_speeds(trials, executor):
    """Stands in for :func:`archlab.mad.estimate.measure`: 40 % of 100 GFLOP/s for every trial."""
    yield Ceilings(gemm=1e11, copy=1e10)
    for trial in trials:
        yield trial, 4e10


class ThreadExecutor:
    """An executor without processes. What has begun goes on in its thread though nobody waits for it any more."""

    def __init__(self, work, num_workers: int = 2) -> None:
        self.work, self.num_workers = work, num_workers
        self.threads = ThreadPoolExecutor(num_workers)
        self.futures: set[Future] = set()

    def submit(self, jobs, on_progress, thresholds=None) -> list[Future]:
        futures = [Future() for _ in jobs]
        self.futures.update(futures)
        begun = self.threads.submit(self._run, jobs, on_progress, thresholds or [{}] * len(jobs), futures)
        begun.add_done_callback(lambda run: run.cancelled() and [future.cancel() for future in futures])
        return futures

    def stop(self, future) -> None:
        future.cancel()

    def _run(self, jobs, on_progress, thresholds, futures) -> None:
        left = [index for index, future in enumerate(futures) if not future.done()]
        raised = []

        def tell(index, progress):
            try:
                on_progress(jobs[left[index]], progress)
            except Exception as error:
                raised.append(error)
                raise

        try:
            for index, result in self.work([jobs[i] for i in left], tell, [thresholds[i] for i in left]):
                future = futures[left[index]]
                if not future.done() and future.set_running_or_notify_cancel():
                    future.set_result(result)
                if all(future.done() for future in futures):
                    return
        except Exception as error:
            reason = error if error in raised else JobError(in_one_line(error), traceback.format_exc())
            for future in futures:
                if not future.done() and future.set_running_or_notify_cancel():
                    future.set_exception(reason)

    def shutdown(self, grace: float = 0.0) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        wait([future for future in self.futures if not future.done()], grace)
        for future in self.futures:
            future.cancel()
        self.threads.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()


def threads(train, num_workers: int = 2) -> ThreadExecutor:
    """An executor of threads, with a function that trains one job."""
    return ThreadExecutor(partial(each, train), num_workers)
