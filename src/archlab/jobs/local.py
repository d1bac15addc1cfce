"""Runs jobs in single-threaded worker processes on this machine."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import spawn
from typing import Any, Generic

from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.jobs.executor import Executor, J, JobError, P, R, Thresholds, Work, WorkerDiedError
from archlab.jobs.worker import WORKER_VARIABLE, environment, serve
from archlab.machine import Device, available_cores, visible_gpus

ATTEMPTS = 2
"""Number of tries of a job that takes its worker with it."""


class LocalExecutor(Executor[J, P, R]):
    """One single-threaded worker process a core, or one a GPU. Workers start when jobs need them.

    A worker that dies takes the jobs with it that it was computing; a fresh worker tries them again. A worker serves jobs of
    one origin only (see :attr:`archlab.jobs.events.Job.origin`) and is replaced when a job has changed the state of its
    process, so no job can change the result of another. When this process dies, its workers end by themselves.
    """

    def __init__(self, work: Work[J, P, R], num_workers: int | None = None, *, device: Device = "cpu") -> None:
        """Start no worker yet.

        By default there is one worker a core that this process may use, or one a GPU; those of ``"cuda"`` take the GPUs in turn.
        Refuses fewer than one worker, a device that is not there, and a process that is itself a worker.
        """
        with _starting:
            if WORKER_VARIABLE in os.environ:
                raise ArchlabError(
                    f"this process is a worker ({WORKER_VARIABLE} is set), which starts none: in a script run jobs under "
                    f"`if __name__ == '__main__':`, in a shell unset {WORKER_VARIABLE}"
                )
        if num_workers is not None and num_workers < 1:
            raise ArchlabError(f"workers={num_workers}: must be at least 1")
        self._gpus = visible_gpus() if device == "cuda" else None
        if self._gpus == []:
            raise ArchlabError("device='cuda': no GPU is visible here: choose device='cpu'")
        self.num_workers = num_workers or (len(self._gpus) if self._gpus else available_cores())
        self._work = work
        self._threads = ThreadPoolExecutor(self.num_workers, thread_name_prefix="archlab-worker")
        self._lock = threading.Condition()
        self._workers: list[_Worker[J, P, R] | None] = [None] * self.num_workers
        self._free_slots = list(reversed(range(self.num_workers)))
        self._groups: dict[Future[R], _Group[J, P, R]] = {}
        self._closed = False

    @override
    def submit(
        self, jobs: Sequence[J], on_progress: Callable[[J, P], None], thresholds: Sequence[Thresholds] | None = None
    ) -> list[Future[R]]:
        group: _Group[J, P, R] = _Group(jobs, on_progress, thresholds or [{}] * len(jobs), [Future() for _ in jobs])
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
                worker.process.terminate()
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

    def _run(self, group: "_Group[J, P, R]") -> None:
        with self._lock:
            slot = self._free_slot(group.origin)
        try:
            for _ in range(ATTEMPTS):
                worker = self._worker(slot, group)
                try:
                    return worker.run(group)
                except EOFError:
                    death = worker.cause_of_death()
                if self._closed or group.is_over():
                    raise CancelledError
            raise WorkerDiedError(f"the worker {death} on each of {ATTEMPTS} attempts")
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

    def _worker(self, slot: int, group: "_Group[J, P, R]") -> "_Worker[J, P, R]":
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
                gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
                worker = self._workers[slot] = _Worker(self._work, gpu, group.origin)
            group.worker = worker
            return worker


@dataclass(eq=False)
class _Group(Generic[J, P, R]):
    """Jobs that were submitted together."""

    jobs: Sequence[J]
    on_progress: Callable[[J, P], None]
    thresholds: Sequence[Thresholds]
    futures: list[Future[R]]
    worker: "_Worker[J, P, R] | None" = None
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


class _Worker(Generic[J, P, R]):
    """The parent's end of a worker process."""

    def __init__(self, work: Work[J, P, R], gpu: str | None, origin: str) -> None:
        self.origin = origin
        context = multiprocessing.get_context("spawn")
        requests, self._requests = context.Pipe(duplex=False)
        self._replies, replies = context.Pipe(duplex=False)
        self._killed = False
        with _inherited(environment(gpu)), _without_script() as script:
            self.process = context.Process(target=serve, args=(requests, replies, pickle.dumps(work), script), daemon=True)
            self.process.start()
        requests.close()
        replies.close()

    def run(self, group: _Group[J, P, R]) -> None:
        """Compute those jobs of a group that have not ended; raises JobError if the work did, EOFError if the worker died."""
        left = [index for index, future in enumerate(group.futures) if not future.done()]
        request = pickle.dumps(([group.jobs[index] for index in left], [dict(group.thresholds[index]) for index in left]))
        done = False
        try:
            for kind, value in self._replies_to(request):
                if kind == "end":
                    done = not value  # else a job has changed the state of the process, which serves no other
                    return
                if kind == "error":
                    reason, traceback, changed = value
                    done = not changed
                    raise JobError(reason, traceback)
                index = left[value[0]]
                if kind == "progress":
                    group.on_progress(group.jobs[index], value[1])
                elif not group.futures[index].done() and group.futures[index].set_running_or_notify_cancel():
                    group.futures[index].set_result(value[1])
        finally:
            if not done:  # replies of these jobs must never be taken for those of the next
                self.kill()
                self.process.join()

    def _replies_to(self, request: bytes) -> Iterator[tuple[str, Any]]:
        try:
            self._requests.send_bytes(request)
            while True:
                while not self._replies.poll(1.0):  # a child of a dead worker may hold the pipe open
                    if not self.process.is_alive() and not self._replies.poll():
                        raise EOFError
                yield self._replies.recv()
        except OSError as error:
            raise EOFError from error

    def is_alive(self) -> bool:
        return not self._killed and self.process.is_alive()  # the signal may still be on its way

    def cause_of_death(self) -> str:
        """How the process ended, as a verb phrase."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with status {code}"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def kill(self) -> None:
        """End the process, and all that its jobs have started."""
        self._killed = True
        with suppress(ProcessLookupError, PermissionError):  # it leads a group as soon as it serves
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()

    def close(self) -> None:
        self.process.join()
        self.process.close()
        self._requests.close()
        self._replies.close()


_starting = threading.Lock()


@contextmanager
def _inherited(variables: dict[str, str]) -> Iterator[None]:
    """A child that starts here has these variables before its first import, and no Ctrl-C until it ignores it."""
    with _starting:
        before = {name: os.environ.get(name) for name in variables}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _without_script() -> Iterator[dict[str, Any]]:
    """A process that starts here does not import the script of this one, which may change what all jobs compute with.

    Gives what ``multiprocessing`` needs to import it there later.
    """
    prepare = spawn.get_preparation_data
    script = {name: value for name, value in prepare("").items() if name.startswith("init_main")}
    spawn.get_preparation_data = lambda name: {key: value for key, value in prepare(name).items() if key not in script}
    try:
        yield script
    finally:
        spawn.get_preparation_data = prepare
