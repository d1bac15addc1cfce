"""Progress of a run, from its events: counts, speed, time left, best scores so far."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archlab.jobs import events
from archlab.jobs.events import Event, RunSummary
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.scaling.result import LMProgress, LMResult
from archlab.scaling.trial import LMTrial

AnyJob = Trial | LMTrial
AnyProgress = Progress | LMProgress
AnyResult = TrialResult | LMResult
Kind = tuple[str, str]
"""Architecture, with the task of a trial or the width of a language model: jobs of one kind take about the same time per FLOP."""


def kind(job: AnyJob) -> Kind:
    """The kind of a job."""
    if isinstance(job, Trial):
        return str(job.architecture), job.setting.name
    return job.run.label, str(job.run.dim)


def speed(progress: AnyProgress) -> float:
    """Training examples of a trial a second, or tokens of a language model."""
    return progress.examples_per_second if isinstance(progress, Progress) else progress.tokens_per_second


def step_size(job: AnyJob) -> float:
    """Training examples of a step of a trial, or tokens of a step of a language model."""
    if isinstance(job, Trial):
        return min(job.recipe.batch_size, job.setting.num_train_examples)
    return job.run.tokens / job.run.steps


@dataclass
class Running:
    """A job that a worker has been given; times in seconds of the progress's clock."""

    job: AnyJob
    since: float
    first: tuple[float, int] | None = None
    """Time and step of the first report; the time before it includes the start of the worker."""
    reported: float = 0.0
    progress: AnyProgress | None = None

    def report(self, now: float, progress: AnyProgress) -> None:
        """Take in a report of the job."""
        self.first = self.first or (now, progress.step)
        self.reported, self.progress = now, progress

    def seconds_per_step(self) -> float | None:
        """Pace between the first and the last report, evaluations included; None before the first."""
        if self.progress is None or self.first is None:
            return None
        if self.progress.step > self.first[1]:
            return (self.reported - self.first[0]) / (self.progress.step - self.first[1])
        return step_size(self.job) / speed(self.progress) if speed(self.progress) > 0 else None


class RunProgress:
    """The state of a run of trials or language models.

    Time left is the rest of the running jobs at their own pace, and the others by FLOPs: at the pace of finished jobs of the
    same kind if there are any, else of the same architecture, else of all so far. Finished jobs count with the time that they
    took, so that early stopping is foreseen once it has been seen. Where more jobs run than there are workers, the jobs of a
    worker share its time.
    """

    def __init__(self, jobs: Sequence[AnyJob], num_workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with no job done; the jobs include those with a stored result, the clock gives seconds.

        With workers elsewhere ``num_workers`` is 0; their number is taken to be the most jobs that have run at once.
        """
        self.num_workers = num_workers
        self.reused = self.computed = self.failed = self.diverged = self.skipped = 0
        self.running: dict[str, Running] = {}
        self._most_at_once = 0
        self.waiting = {job.key: job for job in jobs}
        self.total = len(self.waiting)
        self.best: dict[tuple[str, str], float] = {}
        """Best test score so far by architecture's label and task."""
        self.ended: RunSummary | None = None
        self._clock = clock
        self._flops = {key: job.flops for key, job in self.waiting.items()}
        one_of_each: dict[Kind, Kind] = {}  # of a hundred thousand jobs they take as much memory as their keys
        self._kinds = {key: one_of_each.setdefault(kind(job), kind(job)) for key, job in self.waiting.items()}
        self._waiting_flops: dict[Kind, float] = defaultdict(float)
        for key in self.waiting:
            self._waiting_flops[self._kinds[key]] += self._flops[key]
        self._finished: dict[Kind, list[float]] = defaultdict(list)
        """Seconds per FLOP of the jobs that this run has finished."""

    @property
    def done(self) -> int:
        """Number of jobs that need no more work."""
        return self.reused + self.computed + self.failed + self.skipped

    @property
    def speed(self) -> float:
        """Training examples or tokens a second, all running jobs together."""
        return sum(speed(running.progress) for running in self.running.values() if running.progress)

    def update(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case events.JobReused(job, result):
                self.reused += 1
                self._settle(job, result)
            case events.JobStarted(job):
                self._forget(job)
                self.running[job.key] = Running(job, self._clock())
                self._most_at_once = max(self._most_at_once, len(self.running))
            case events.JobProgressed(job, progress):
                if job.key in self.running:
                    self.running[job.key].report(self._clock(), progress)
            case events.JobFinished(job, result):
                self.computed += 1
                seconds = result.wall_seconds if isinstance(result, TrialResult) else result.seconds
                self._finished[self._kinds[job.key]].append(seconds / self._flops[job.key])
                self._settle(job, result)
            case events.JobFailed(job):
                self.failed += 1
                self._forget(job)
            case events.JobsSkipped(jobs):
                self.skipped += len(jobs)
                for job in jobs:
                    self._forget(job)
            case events.RunEnded(summary):
                self.computed = summary.computed  # jobs that finished while the run ended have no event of their own
                self.ended = summary
            case _:
                pass

    def seconds_left(self) -> float | None:
        """Expected wall time until the run ends; None until a first job has finished or reported."""
        paces = self._paces()
        if not paces:
            return None if self.running or self.waiting else 0.0
        running = [self._rest(running, paces) for running in self.running.values()]
        waiting = sum(flops * _pace(kind, paces) for kind, flops in self._waiting_flops.items())
        workers = max(min(self.num_workers or self._most_at_once, len(self.running) + len(self.waiting)), 1)
        return max((sum(running) / self._jobs_per_worker + waiting) / workers, max(running, default=0.0))

    @property
    def _jobs_per_worker(self) -> float:
        return max(len(self.running) / self.num_workers, 1.0) if self.num_workers else 1.0

    def _paces(self) -> dict[Kind, list[float]]:
        """Seconds of a worker per FLOP by kind: finished jobs, and running ones if no job of their kind has finished."""
        paces = {kind: list(found) for kind, found in self._finished.items()}
        for key, running in self.running.items():
            seconds = running.seconds_per_step()
            if seconds is not None and running.progress is not None and self._kinds[key] not in self._finished:
                whole = seconds * running.progress.num_steps / self._jobs_per_worker
                paces.setdefault(self._kinds[key], []).append(whole / self._flops[key])
        return paces

    def _rest(self, running: Running, paces: dict[Kind, list[float]]) -> float:
        """Seconds until a running job ends."""
        now, key = self._clock(), running.job.key
        expected = self._flops[key] * _pace(self._kinds[key], paces) * self._jobs_per_worker - (now - running.since)
        seconds = running.seconds_per_step()
        if seconds is None or running.progress is None:
            return max(expected, 0.0)
        by_step = max((running.progress.num_steps - running.progress.step) * seconds - (now - running.reported), 0.0)
        # A job that outlasts those before it has not stopped early as they have.
        return min(by_step, expected) if self._kinds[key] in self._finished and expected > 0 else by_step

    def _settle(self, job: AnyJob, result: AnyResult) -> None:
        self._forget(job)
        self.diverged += result.status == "diverged"
        if isinstance(job, Trial) and isinstance(result, TrialResult):
            cell = (job.architecture.label, job.setting.name)
            self.best[cell] = max(result.score, self.best.get(cell, 0.0))

    def _forget(self, job: AnyJob) -> None:
        self.running.pop(job.key, None)
        if self.waiting.pop(job.key, None):
            self._waiting_flops[self._kinds[job.key]] -= self._flops[job.key]


def _pace(kind: Kind, paces: dict[Kind, list[float]]) -> float:
    """Seconds per FLOP to expect: those of the kind, else of the architecture, else of all."""
    known = paces.get(kind) or [x for (owner, _), own in paces.items() if owner == kind[0] for x in own]
    known = known or [x for own in paces.values() for x in own]
    return sum(known) / len(known)
