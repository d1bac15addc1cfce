"""The executor of processes that share every model: those that ``torchrun`` has started together."""

import gc
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import torch
from typing_extensions import override

from archlab.errors import ArchlabError, in_one_line
from archlab.isolation import changed, snapshot
from archlab.jobs.executor import Executor, J, JobError, P, R, Thresholds, Work
from archlab.scaling.processes import Processes

_IDLE_SECONDS = 60.0
"""Time after which waiting processes hear from the first one, lest they take it for dead."""

_Task = tuple[Sequence[Any], Callable[[Any, Any], None], Sequence[Thresholds], list[Future[Any]]]


class ProcessGroupExecutor(Executor[J, P, R]):
    """Computes one group of jobs at a time, over all processes. Lives in the first process; the others :func:`follow` it.

    What has begun goes on to its end, or until the executor shuts down, though nobody waits for it any more.
    """

    num_workers = 1

    def __init__(self, work: Work[J, P, R], processes: Processes) -> None:
        """Start the thread that computes; ``work`` is the same function as in the other processes."""
        self._work, self._processes = work, processes
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._futures: list[Future[R]] = []
        self._thread = threading.Thread(target=self._serve, name="archlab-process-group", daemon=True)
        self._spoiled = ""
        """State of the processes that a job has changed, so that they can serve no other."""
        self._thread.start()

    @override
    def submit(
        self, jobs: Sequence[J], on_progress: Callable[[J, P], None], thresholds: Sequence[Thresholds] | None = None
    ) -> list[Future[R]]:
        futures: list[Future[R]] = [Future() for _ in jobs]
        self._futures += futures
        self._queue.put((jobs, on_progress, thresholds or [{}] * len(jobs), futures))
        return futures

    @override
    def stop(self, future: Future[R]) -> None:
        future.cancel()

    @override
    def shutdown(self, grace: float = 0.0) -> None:
        self._processes.asked.append(signal.SIGTERM)
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(None)
        self._thread.join(grace)
        for future in self._futures:
            future.cancel()

    @override
    def __exit__(self, *_: object) -> None:
        self.shutdown(_IDLE_SECONDS)

    def _serve(self) -> None:
        if self._processes.device.type == "cuda":
            torch.cuda.set_device(self._processes.device)
        while True:
            try:
                task = self._queue.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._processes.agree(())
                continue
            if task is None:
                self._processes.agree(None)
                return
            self._compute(*task)

    def _compute(
        self, jobs: Sequence[J], on_progress: Callable[[J, P], None], thresholds: Sequence[Thresholds], futures: list[Future[R]]
    ) -> None:
        left = [index for index, future in enumerate(futures) if not future.done()]
        if not left:
            return
        started, raised = [jobs[index] for index in left], []

        def report(index: int, progress: P) -> None:
            try:
                on_progress(started[index], progress)
            except Exception as error:
                raised.append(error)
                raise

        before = snapshot()
        try:
            if self._spoiled:
                raise ArchlabError(f"a job before has changed {self._spoiled} of these processes: run the same command again")
            self._processes.agree(started)
            for index, result in self._work(started, report, [thresholds[index] for index in left]):
                future = futures[left[index]]
                if not future.done() and future.set_running_or_notify_cancel():
                    future.set_result(result)
        except BaseException as error:
            reason = error if error in raised else JobError(in_one_line(error), traceback.format_exc())
            for future in futures:
                if not future.done() and future.set_running_or_notify_cancel():
                    future.set_exception(reason)
        self._spoiled = self._spoiled or changed(before, started=False)
        _free()


def _free() -> None:
    """Give memory back that a job which failed has left to the allocator."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def follow(work: Work[J, P, R], processes: Processes) -> None:
    """Compute along with the first process until it ends; what fails a job here has failed it in the first process too."""
    while True:
        jobs: Any = processes.agree(None)  # an empty group says that the first process is alive
        if jobs is None:
            return
        with suppress(torch.OutOfMemoryError):  # of all processes alike: it ends this job, not those that follow
            for _ in work(jobs, lambda *_: None, [{}] * len(jobs)) if jobs else ():
                pass
        _free()
