"""The one loop that computes jobs: claim, submit, listen, store, stay alive."""

import queue
import time
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, TypeVar

from archlab.errors import ArchlabError
from archlab.jobs import events
from archlab.jobs.events import Event, Job, Listener, RunSummary
from archlab.jobs.executor import Executor, JobError, Thresholds
from archlab.store.ledger import Ledger, Record
from archlab.store.provenance import provenance
from archlab.store.record import RACED, SETTLED, Status

HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.5
"""Time between two looks at the jobs that another run holds."""


J = TypeVar("J", bound=Job)
R = TypeVar("R")


class Policy(Generic[J, R]):
    """Decides which jobs are needed, in which order, and which are computed together. This one: all, as given, one by one."""

    settled: tuple[Status, ...] = SETTLED
    """Statuses of jobs that need no more computing."""
    whole_results: bool = False
    """Whether :meth:`observe` needs results with what only they themselves need, such as their curves."""
    group_size: int = 1
    """Largest number of jobs that a worker computes together."""

    def observe(self, job: J, result: R) -> Sequence[J]:
        """Take in a result; returns the jobs without a result that are no longer needed. Any order of results will do."""
        return ()

    def failed(self, job: J) -> Sequence[J]:
        """Take in that a job gave no result; returns the same as :meth:`observe`."""
        return ()

    def order(self, waiting: Mapping[str, J], running: Collection[J]) -> list[J]:
        """The jobs that may start now, the next one first."""
        return list(waiting.values())

    def thresholds(self, job: J) -> Thresholds:
        """The pruning thresholds of a job that starts now."""
        return {}

    def group(self, job: J) -> Hashable:
        """Equal for jobs that can be computed together."""
        return job.key


def run(
    jobs: Iterable[J],
    store: Ledger[J, R],
    executor: Executor[J, Any, R],
    *,
    policy: Policy[J, R] | None = None,
    listeners: Sequence[Listener] = (),
    grace: float = 0.0,
    known: Sequence[Record[J, Any]] = (),
) -> RunSummary:
    """Compute those of the jobs that the store has no result for, and store every result as it comes.

    As many groups of jobs run at once as the executor has workers. Jobs that another run on the same store computes are
    waited for, and taken over if that run dies. A job that fails does not stop the others; the next run tries it again.
    Listeners are called with every event, in this thread. If the run ends early, running jobs have ``grace`` seconds to end by
    themselves, then the executor is shut down, the claims are given back and :class:`events.RunEnded` is sent. ``known`` are
    records of settled jobs that the caller has just read from the store, as whole as the policy needs them.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        ArchlabError: the store can no longer be written, or is gone; what it holds is intact.
    """
    pending = {job.key: job for job in jobs}
    return _Run(
        store=store,
        executor=executor,
        policy=policy or Policy(),
        listeners=listeners,
        grace=grace,
        pending=pending,
        summary=RunSummary(total=len(pending)),
    ).run(known)


@dataclass(frozen=True)
class _Running(Generic[J, R]):
    """A job that the executor has."""

    job: J
    future: Future[R]
    since: datetime
    group: tuple[str, ...]
    """Keys of the jobs that are computed together with it, itself included."""


@dataclass(eq=False, kw_only=True)
class _Run(Generic[J, R]):
    """The state of a run."""

    store: Ledger[J, R]
    executor: Executor[J, Any, R]
    policy: Policy[J, R]
    listeners: Sequence[Listener]
    grace: float
    pending: dict[str, J]
    summary: RunSummary
    running: dict[str, _Running[J, R]] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    messages: queue.SimpleQueue[tuple[J, Any]] = field(default_factory=queue.SimpleQueue)
    last_heartbeat: float = field(default_factory=time.monotonic)
    waiting_for: tuple[str, ...] = ()
    origins: dict[str, str] = field(default_factory=dict)
    """By the keys of the jobs that have no result when the run starts."""
    latest_origin: str = ""
    """That of the job which has ended last."""

    def run(self, known: Sequence[Record[J, Any]]) -> RunSummary:
        try:
            self.emit(events.RunStarted(tuple(self.pending.values()), self.executor.num_workers))
            self.reuse(known)
            self.origins = {key: job.origin for key, job in self.pending.items()}
            while self.pending or self.running:
                self.submit()
                self.listen()
        except BaseException:
            self.stop()
            self.summary.wall_seconds = time.monotonic() - self.summary.started
            for listener in self.listeners:  # every one is told, even if the error is another's, or its own
                with suppress(Exception):
                    listener(events.RunEnded(self.summary, interrupted=True))
            raise
        self.store.release()
        self.summary.wall_seconds = time.monotonic() - self.summary.started
        self.emit(events.RunEnded(self.summary))
        return self.summary

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def reuse(self, known: Sequence[Record[J, Any]] = ()) -> None:
        """Take over the results that the store has, from before or from other runs, and leave out what they make unnecessary."""
        unneeded: list[J] = []
        read = self.store.records if self.policy.whole_results else self.store.outcomes
        damaged: dict[str, str] = {}
        unread = self.pending.keys() - {record.key for record in known}
        keys = [key for key in self.pending if key in unread]
        for record in (*known, *read(keys=keys, statuses=self.policy.settled, unreadable=damaged)):
            assert record.result is not None
            job = self.pending.pop(record.key)
            if record.job != job:  # they differ in what the key leaves out
                self.store.describe(job)
            self.summary.reused += 1
            self.summary.results[record.key] = record.result
            self.emit(events.JobReused(job, record.result))
            unneeded += self.policy.observe(job, record.result)
        if damaged:
            self.store.discard(damaged)
            self.emit(events.ResultsDamaged(damaged))
        self.skip(unneeded)

    def skip(self, jobs: Sequence[J]) -> None:
        """Leave these jobs out; those that run are stopped, and left out once they have ended."""
        waiting = tuple(job for job in jobs if self.pending.pop(job.key, None))
        if waiting:
            self.summary.skipped += len(waiting)
            self.emit(events.JobsSkipped(waiting))
        for job in jobs:
            if job.key in self.running:
                self.stopped.add(job.key)
                self.executor.stop(self.running[job.key].future)

    def submit(self) -> None:
        """Give jobs to every free worker."""
        free = self.executor.num_workers - len({one.group for one in self.running.values()})
        if not free or not self.pending:
            return
        self.reuse()
        candidates = self.policy.order(self.pending, [one.job for one in self.running.values()])
        if len(set(self.origins.values())) > 1:  # the worker that is free serves the origin of its last job without a restart
            candidates.sort(key=lambda job: self.origins[job.key] != self.latest_origin)
        for first in self.store.claim(candidates, free, self.policy.settled):
            group = self.claim_group(first, candidates)
            for job in group:
                del self.pending[job.key]
                self.emit(events.JobStarted(job))
            futures = self.executor.submit(
                group, lambda job, progress: self.messages.put((job, progress)), [self.policy.thresholds(job) for job in group]
            )
            keys = tuple(job.key for job in group)
            for job, future in zip(group, futures, strict=True):
                self.running[job.key] = _Running(job, future, datetime.now(UTC), keys)
                future.add_done_callback(partial(lambda job, future: self.messages.put((job, future)), job))
        held = tuple(self.pending)
        if held and not self.running and held != self.waiting_for:
            self.waiting_for = held
            self.emit(events.Waiting(tuple(self.pending.values())))

    def claim_group(self, first: J, candidates: Sequence[J]) -> list[J]:
        """A claimed job, and others that are claimed to be computed together with it."""
        if self.policy.group_size == 1:
            return [first]
        same = self.policy.group(first)
        left = [job for job in candidates if job.key in self.pending and job.key != first.key]
        others = [job for job in left if self.policy.group(job) == same]
        return [first, *self.store.claim(others, self.policy.group_size - 1, self.policy.settled)]

    def listen(self) -> None:
        """Handle the next message, if one comes in time, and stay alive in the eyes of other runs."""
        with suppress(queue.Empty):
            job, message = self.messages.get(timeout=POLL_SECONDS)
            if isinstance(message, Future):
                self.settle(job, message)
            else:
                self.emit(events.JobProgressed(job, message))
        if time.monotonic() - self.last_heartbeat > HEARTBEAT_SECONDS:
            self.store.heartbeat()
            self.last_heartbeat = time.monotonic()

    def settle(self, job: J, future: Future[R]) -> None:
        """Store how a job has ended."""
        self.latest_origin = self.origins[job.key]
        try:
            result = future.result()
        except CancelledError:
            if job.key not in self.stopped:
                raise
            self.store.give_back(job)
            del self.running[job.key]
            self.summary.skipped += 1
            self.emit(events.JobsSkipped((job,)))
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            text = f"{reason}\n{error.traceback}" if isinstance(error, JobError) else reason
            self.store.fail(job, text, provenance(job.device, self.running[job.key].since))
            del self.running[job.key]
            self.summary.failed[job.key] = reason
            self.emit(events.JobFailed(job, text))
            self.skip(self.policy.failed(job))
        else:
            self.keep(job, result)
            self.emit(events.JobFinished(job, result))
            self.skip(self.policy.observe(job, result))

    def keep(self, job: J, result: R) -> None:
        """Store a result."""
        self.store.finish(job, result, provenance(job.device, self.running[job.key].since))
        self.count(job, result)

    def count(self, job: J, result: R) -> None:
        """Count a result that is stored."""
        del self.running[job.key]
        self.summary.computed += 1
        self.summary.results[job.key] = result

    def stop(self) -> None:
        """End the workers, keep what they have finished, give the rest back."""
        self.executor.shutdown(self.grace)
        with suppress(ArchlabError):
            records = self.store.records(keys=self.running, statuses=RACED, unreadable={})
            stored = {record.key: record.result for record in records}
            for key, one in list(self.running.items()):
                if (result := stored.get(key)) is not None:  # the interruption came between storing and counting it
                    self.count(one.job, result)
                elif one.future.done() and not one.future.cancelled() and one.future.exception() is None:
                    self.keep(one.job, one.future.result())
        with suppress(ArchlabError):
            self.store.release()
