"""A run on its way: what is left, what runs, and what it makes of every message. :mod:`archlab.jobs.scheduler` drives it."""

import queue
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic

from archlab.errors import ArchlabError
from archlab.jobs import events
from archlab.jobs.events import Event, Listener, RunSummary
from archlab.jobs.executor import Executor, JobError
from archlab.jobs.policy import J, Policy, R
from archlab.store.ledger import Ledger, Record
from archlab.store.provenance import provenance
from archlab.store.record import RACED, Status

HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.5
"""Time between two looks at the jobs that others hold; more where a look takes more than a tenth of it."""

Messages = queue.SimpleQueue[tuple["Run[Any, Any]", Any, Any]]
"""Messages of executors about jobs, with the runs that these belong to."""


@dataclass(frozen=True)
class _Running(Generic[J, R]):
    """A job that the executor has."""

    job: J
    future: Future[R]
    since: datetime
    group: tuple[str, ...]
    """Keys of the jobs that are computed together with it, itself included."""


class Run(Generic[J, R]):
    """The jobs of one run on their way to their results."""

    def __init__(
        self,
        jobs: Iterable[J],
        store: Ledger[J, R],
        executor: Executor[J, Any, R],
        messages: Messages,
        *,
        policy: Policy[J, R] | None = None,
        listeners: Sequence[Listener] = (),
        shared: bool = False,
    ) -> None:
        """Prepare to compute the jobs; ``messages`` takes what the executor says of them.

        ``shared`` runs are computed by workers of several machines together: a failure counts for all of them.
        """
        self.store, self.executor, self.messages, self.listeners = store, executor, messages, listeners
        self.policy: Policy[J, R] = policy or Policy()
        self.settled: tuple[Status, ...] = (*self.policy.settled, "failed") if shared else self.policy.settled
        self.pending = {job.key: job for job in jobs}
        self.summary = RunSummary(total=len(self.pending))
        self.running: dict[str, _Running[J, R]] = {}
        self.stopped: set[str] = set()
        self.begun: set[str] = set()  # by others, where others compute everything
        self.waiting_for: tuple[str, ...] = ()
        self.origins: dict[str, str] = {}  # by the keys of the jobs that have no result when the run starts
        self.latest_origin = ""  # that of the job which has ended last
        self.last_heartbeat = time.monotonic()
        self.next_look = self.next_reuse = 0.0  # when it is time to look again what is free, and what is done; by the same clock

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to compute or to wait for."""
        return not self.pending and not self.running

    @property
    def groups(self) -> int:
        """Workers that are busy for this run."""
        return len({one.group for one in self.running.values()})

    @property
    def _watches(self) -> bool:
        """Whether workers elsewhere compute all jobs; then their results count as computed, not as reused."""
        return not self.executor.num_workers

    def begin(self, known: Sequence[Record[J, Any]] = ()) -> None:
        """Take over what the store has; ``known`` are records that the caller has just read."""
        self.emit(events.RunStarted(tuple(self.pending.values()), self.executor.num_workers))
        self.reuse(known)
        self.origins = {key: job.origin for key, job in self.pending.items()}

    def end(self) -> None:
        """Give back what is left of the claims, and say that the run is over."""
        self.store.release()
        self.summary.wall_seconds = time.monotonic() - self.summary.started
        self.emit(events.RunEnded(self.summary))

    def abort(self) -> None:
        """Keep what has finished, give the rest back, and say that the run ends before its time; the executor is shut down."""
        self._keep_finished()
        self.summary.wall_seconds = time.monotonic() - self.summary.started
        for listener in self.listeners:  # every one is told, even if the error is another's, or its own
            with suppress(Exception):
                listener(events.RunEnded(self.summary, interrupted=True))

    def withdraw(self) -> None:
        """Compute nothing more: what runs is stopped, and over once it has ended."""
        self.skip([*self.pending.values(), *(one.job for one in self.running.values())])

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            listener(event)

    def reuse(self, known: Sequence[Record[J, Any]] = ()) -> None:
        """Take over the results that the store has, from before or from other runs, and leave out what they make unnecessary."""
        unneeded: list[J] = []
        arriving = self._watches and bool(self.origins)
        read = self.store.records if self.policy.whole_results or arriving else self.store.outcomes
        damaged: dict[str, str] = {}
        unread = self.pending.keys() - {record.key for record in known}
        keys = [key for key in self.pending if key in unread]
        for record in (*known, *read(keys=keys, statuses=self.settled, unreadable=damaged)):
            job = self.pending.pop(record.key)
            if record.result is None:  # it failed elsewhere
                unneeded += self.failed(job, record.error or "")
                continue
            if record.job != job and not arriving:  # they differ in what the key leaves out
                self.store.describe(job)
            self.summary.results[record.key] = record.result
            self.summary.computed += arriving
            self.summary.reused += not arriving
            self.emit(events.JobFinished(job, record.result) if arriving else events.JobReused(job, record.result))
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

    def submit(self, free: int) -> None:
        """Give jobs to workers that are free, up to so many; see what others have done meanwhile."""
        if not self.pending or not (free > 0 or self._watches) or time.monotonic() < self.next_look:
            return
        started, before = time.monotonic(), len(self.running)
        if started >= self.next_reuse:
            self.reuse()
            self.next_reuse = time.monotonic() + 9 * (time.monotonic() - started)
        if self._watches:
            self.watch()
        else:
            self.claim(free)
        if len(self.running) == before:
            now = time.monotonic()
            self.next_look = now + max(POLL_SECONDS, 9 * (now - started))

    def watch(self) -> None:
        """Say what others have begun."""
        begun = self.store.running([key for key in self.pending if key not in self.begun])
        self.begun |= begun
        for key in begun:
            self.emit(events.JobStarted(self.pending[key]))

    def claim(self, free: int) -> None:
        """Claim jobs for free workers, and give them to the executor."""
        candidates = self.policy.order(self.pending, [one.job for one in self.running.values()])
        if len(set(self.origins.values())) > 1:  # first those of the last job's origin: its worker needs no restart
            candidates.sort(key=lambda job: self.origins[job.key] != self.latest_origin)
        for first in self.store.claim(candidates, free, self.settled):
            group = self.claim_group(first, candidates)
            for job in group:
                del self.pending[job.key]
                self.emit(events.JobStarted(job))
            futures = self.executor.submit(
                group,
                lambda job, progress: self.messages.put((self, job, progress)),
                [self.policy.thresholds(job) for job in group],
            )
            keys = tuple(job.key for job in group)
            for job, future in zip(group, futures, strict=True):
                self.running[job.key] = _Running(job, future, datetime.now(UTC), keys)
                future.add_done_callback(partial(lambda job, future: self.messages.put((self, job, future)), job))
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
        return [first, *self.store.claim(others, self.policy.group_size - 1, self.settled)]

    def take(self, job: J, message: Any) -> None:
        """Handle what the executor says of a job: its progress, or the future of its result."""
        if isinstance(message, Future):
            self.settle(job, message)
        else:
            self.emit(events.JobProgressed(job, message))

    def beat(self) -> None:
        """Stay alive in the eyes of other runs."""
        if time.monotonic() - self.last_heartbeat > HEARTBEAT_SECONDS:
            self.store.heartbeat()
            self.last_heartbeat = time.monotonic()

    def settle(self, job: J, future: Future[R]) -> None:
        """Store how a job has ended."""
        self.latest_origin = self.origins[job.key]
        self.next_look = 0.0
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
            text = f"{reason}\n{error.traceback}".strip() if isinstance(error, JobError) else reason
            self.store.fail(job, text, self.provenance(job))
            del self.running[job.key]
            self.skip(self.failed(job, text))
        else:
            self.keep(job, result)
            self.emit(events.JobFinished(job, result))
            self.skip(self.policy.observe(job, result))

    def failed(self, job: J, error: str) -> Sequence[J]:
        """Count a failure that is stored; the jobs that need not be computed any more."""
        event = events.JobFailed(job, error)
        self.summary.failed[job.key] = event.reason
        self.emit(event)
        return self.policy.failed(job)

    def keep(self, job: J, result: R) -> None:
        """Store a result."""
        self.store.finish(job, result, self.provenance(job))
        self.count(job, result)

    def provenance(self, job: J) -> dict[str, Any]:
        """Where and when a job was computed that ends now."""
        one = self.running[job.key]
        return provenance(job.device, one.since) | getattr(one.future, "environment", {})

    def count(self, job: J, result: R) -> None:
        """Count a result that is stored."""
        del self.running[job.key]
        self.summary.computed += 1
        self.summary.results[job.key] = result

    def _keep_finished(self) -> None:
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
