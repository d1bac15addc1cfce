"""An executor over slots, each with a worker that computes one group of jobs after the other. A base class."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol

from typing_extensions import override

from archlab.jobs.executor import Executor, J, P, R, Thresholds, WorkerDiedError

ATTEMPTS = 2
"""Number of tries of a job that takes its worker with it."""


@dataclass(eq=False)
class Group(Generic[J, P, R]):
    """Jobs that were submitted together."""

    jobs: Sequence[J]
    on_progress: Callable[[J, P], None]
    thresholds: Sequence[Thresholds]
    futures: list[Future[R]]
    worker: "Worker[J, P, R] | None" = None
    """The worker that runs it, while one does."""

    @property
    def origin(self) -> str:
        """The jobs' origin; they have one in common."""
        return str(getattr(self.jobs[0], "origin", ""))

    def is_over(self) -> bool:
        """Whether no job is left that somebody waits for."""
        return all(future.done() for future in self.futures)

    def settle(self, run: Future[None]) -> None:
        """Pass on to the jobs that have not ended by themselves how the run ended."""
        error = CancelledError() if run.cancelled() else run.exception()
        for future in self.futures:
            if isinstance(error, CancelledError):
                future.cancel()
            elif not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(error)


class Worker(Protocol[J, P, R]):
    """A worker of a slot, as seen from the process that gives it jobs."""

    origin: str
    """That of the jobs that it serves."""

    def run(self, group: Group[J, P, R]) -> None:
        """Compute those jobs of a group that have not ended; raises JobError if the work did, EOFError if the worker died."""

    def is_alive(self) -> bool:
        """Whether it can serve another group."""

    def cause_of_death(self) -> tuple[str, str]:
        """How it ended, as a verb phrase, and the last that its job has printed."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it, and all that its jobs have started."""

    def close(self) -> None:
        """Wait until it has ended."""


class SlotExecutor(Executor[J, P, R], ABC):
    """Keeps the contract of an executor over workers that :meth:`start` gives.

    A worker that dies takes the jobs with it that it was computing; a fresh worker tries them again. A worker serves jobs of
    one origin only (see :attr:`archlab.jobs.events.Job.origin`).
    """

    def __init__(self, num_workers: int) -> None:
        """Start no worker yet: they start when jobs need them."""
        self.num_workers = num_workers
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="archlab-worker")
        self._lock = threading.Condition()
        self._workers: list[Worker[J, P, R] | None] = [None] * num_workers
        self._free_slots = list(reversed(range(num_workers)))
        self._groups: dict[Future[R], Group[J, P, R]] = {}
        self._closed = False

    @abstractmethod
    def start(self, slot: int, origin: str) -> Worker[J, P, R]:
        """A fresh worker for a slot, which serves jobs of an origin."""

    @override
    def submit(
        self, jobs: Sequence[J], on_progress: Callable[[J, P], None], thresholds: Sequence[Thresholds] | None = None
    ) -> list[Future[R]]:
        group: Group[J, P, R] = Group(jobs, on_progress, thresholds or [{}] * len(jobs), [Future() for _ in jobs])
        self._groups.update(dict.fromkeys(group.futures, group))
        for future in group.futures:
            future.add_done_callback(self._groups.pop)
        self._threads.submit(self._run, group).add_done_callback(group.settle)
        return group.futures

    @override
    def stop(self, future: Future[R]) -> None:
        with self._lock:
            group = self._groups.get(future)
            if future.cancel() and group is not None and group.is_over() and group.worker is not None:
                group.worker.kill()

    @override
    def shutdown(self, grace: float = 0.0) -> None:
        with self._lock:
            self._closed = True
            workers = [worker for worker in self._workers if worker is not None]
            self._workers = []
        self._threads.shutdown(wait=False, cancel_futures=True)
        if grace:
            for worker in workers:
                worker.terminate()
            with self._lock:
                self._lock.wait_for(self._is_idle, timeout=grace)
        for worker in workers:
            worker.kill()
        # Not the pool's own waiting: Ctrl-C while it starts a thread leaves it one short in its books.
        with self._lock:
            self._lock.wait_for(self._is_idle)
        for worker in workers:
            worker.close()

    def _is_idle(self) -> bool:
        return len(self._free_slots) == self.num_workers

    def _run(self, group: "Group[J, P, R]") -> None:
        with self._lock:
            slot = self._free_slot(group.origin)
        try:
            for _ in range(ATTEMPTS):
                worker = self._worker(slot, group)
                try:
                    return worker.run(group)
                except EOFError:
                    death, printed = worker.cause_of_death()
                if self._closed or group.is_over():
                    raise CancelledError
            raise WorkerDiedError(f"the worker {death} on each of {ATTEMPTS} attempts", printed)
        finally:
            with self._lock:
                group.worker = None
                self._free_slots.append(slot)
                self._lock.notify_all()

    def _free_slot(self, origin: str) -> int:
        """Take a free slot: one whose worker serves this origin, else one without a worker, else any."""

        def preference(slot: int) -> int:
            worker = self._workers[slot] if self._workers else None
            return 1 if worker is None else 2 * (worker.origin == origin)

        slot = max(reversed(self._free_slots), key=preference)
        self._free_slots.remove(slot)
        return slot

    def _worker(self, slot: int, group: "Group[J, P, R]") -> "Worker[J, P, R]":
        """The living worker of a slot for a group of jobs: the one that served it last, or a fresh one."""
        with self._lock:
            if self._closed or group.is_over():
                raise CancelledError
            worker = self._workers[slot]
            if worker is None or not worker.is_alive() or worker.origin != group.origin:
                if worker is not None:
                    worker.kill()
                    worker.close()
                    self._workers[slot] = None  # in case that no other one can be started
                worker = self._workers[slot] = self.start(slot, group.origin)
            group.worker = worker
            return worker
