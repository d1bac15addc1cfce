"""Runs trials in single-threaded worker processes on this machine."""

import math
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from archlab.errors import ArchlabError
from archlab.jobs.executor import TrialError, WorkerDiedError
from archlab.jobs.worker import WORKER_VARIABLE, environment, serve

if TYPE_CHECKING:
    from archlab.jobs.executor import OnProgress, Train
    from archlab.mad.trial import Hurdles, Trial, TrialResult

ATTEMPTS = 2
"""How often a trial is tried that takes its worker with it."""


class LocalExecutor:
    """One single-threaded worker process a core, or one a GPU. Workers start when trials need them.

    A worker that dies takes the trials with it that it was training, which a fresh worker tries again. When this process dies,
    its workers end by themselves.
    """

    def __init__(
        self, num_workers: int | None = None, *, device: Literal["cpu", "cuda"] = "cpu", train: "Train | None" = None
    ) -> None:
        """Start no worker yet.

        Args:
            num_workers: groups of trials that run at once; by default one a core that this process may use, or one a GPU.
            device: where the trials compute; the workers of ``"cuda"`` take the visible GPUs in turn.
            train: what trains a group of trials, a function that can be pickled; by default
                :func:`archlab.mad.train.train_together`.

        Raises:
            ArchlabError: ``num_workers`` is below 1, there is no GPU, or this process is itself a worker.
        """
        with _starting:
            if WORKER_VARIABLE in os.environ:
                raise ArchlabError("workers import the script that starts them: run trials under `if __name__ == '__main__':`")
        if num_workers is not None and num_workers < 1:
            raise ArchlabError(f"workers={num_workers}: must be at least 1")
        gpus = _visible_gpus() if device == "cuda" else None
        if gpus == []:
            raise ArchlabError("device='cuda': no GPU is visible here: choose device='cpu'")
        self._gpus = gpus
        self._num_workers = num_workers or (len(gpus) if gpus else available_cores())
        self._train = train
        self._threads = ThreadPoolExecutor(self._num_workers, thread_name_prefix="archlab-worker")
        self._lock = threading.Condition()
        self._workers: list[_Worker | None] = [None] * self._num_workers
        self._free_slots = list(reversed(range(self._num_workers)))
        self._jobs: dict[Future[TrialResult], _Job] = {}
        self._closed = False

    @property
    def num_workers(self) -> int:
        """Groups of trials that run at once."""
        return self._num_workers

    def submit(
        self, trials: "Sequence[Trial]", on_progress: "OnProgress", hurdles: "Sequence[Hurdles] | None" = None
    ) -> "list[Future[TrialResult]]":
        """See :meth:`archlab.jobs.executor.Executor.submit`."""
        job = _Job(trials, on_progress, hurdles or [{}] * len(trials), [Future() for _ in trials])
        self._jobs.update(dict.fromkeys(job.futures, job))
        for future in job.futures:
            future.add_done_callback(self._jobs.pop)
        self._threads.submit(self._run, job).add_done_callback(job.settle)
        return job.futures

    def stop(self, future: "Future[TrialResult]") -> None:
        """See :meth:`archlab.jobs.executor.Executor.stop`."""
        with self._lock:
            job = self._jobs.get(future)
            if future.cancel() and job is not None and job.is_over() and job.worker is not None:
                job.worker.kill()

    def shutdown(self, grace: float = 0.0) -> None:
        """See :meth:`archlab.jobs.executor.Executor.shutdown`.

        Args:
            grace: seconds that trials which run have to end by themselves, after a SIGTERM, before they are killed.
        """
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
        return len(self._free_slots) == self._num_workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()

    def _run(self, job: "_Job") -> None:
        with self._lock:
            slot = self._free_slots.pop()
        try:
            for _ in range(ATTEMPTS):
                worker = self._worker(slot, job)
                try:
                    return worker.run(job)
                except EOFError:
                    death = worker.cause_of_death()
                if self._closed or job.is_over():
                    raise CancelledError
            raise WorkerDiedError(f"the worker {death} on each of {ATTEMPTS} attempts")
        finally:
            with self._lock:
                job.worker = None
                self._free_slots.append(slot)
                self._lock.notify_all()

    def _worker(self, slot: int, job: "_Job") -> "_Worker":
        """The living worker of a slot for a job: the one that served it last, or a fresh one."""
        with self._lock:
            if self._closed or job.is_over():
                raise CancelledError
            worker = self._workers[slot]
            if worker is None or not worker.is_alive():
                if worker is not None:
                    worker.close()
                    self._workers[slot] = None  # in case that no other one can be started
                gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
                worker = self._workers[slot] = _Worker(self._train, gpu)
            job.worker = worker
            return worker


@dataclass(eq=False)
class _Job:
    """Trials that were submitted together."""

    trials: "Sequence[Trial]"
    on_progress: "OnProgress"
    hurdles: "Sequence[Hurdles]"
    futures: "list[Future[TrialResult]]"
    worker: "_Worker | None" = None
    """The worker that runs it, while one does."""

    def is_over(self) -> bool:
        """Whether no trial is left that somebody waits for."""
        return all(future.done() for future in self.futures)

    def settle(self, run: "Future[None]") -> None:
        """Tell the trials that have not ended by themselves how the run ended."""
        error = CancelledError() if run.cancelled() else run.exception()
        for future in self.futures:
            if isinstance(error, CancelledError):
                future.cancel()
            elif not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(error)


class _Worker:
    """The parent's end of a worker process."""

    def __init__(self, train: "Train | None", gpu: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        requests, self._requests = context.Pipe(duplex=False)
        self._replies, replies = context.Pipe(duplex=False)
        self._process = context.Process(target=serve, args=(requests, replies, train), daemon=True)
        self._killed = False
        with _inherited(environment(gpu)):
            self._process.start()
        requests.close()
        replies.close()

    def run(self, job: _Job) -> None:
        """Train those trials of a job that have not ended.

        Raises:
            TrialError: the training raised.
            EOFError: the worker died.
        """
        left = [place for place, future in enumerate(job.futures) if not future.done()]
        request = pickle.dumps(([job.trials[place] for place in left], [dict(job.hurdles[place]) for place in left]))
        done = False
        try:
            self._send(request)
            while True:
                kind, value = self._receive()
                done = kind in ("end", "error")
                if kind == "end":
                    return
                if kind == "error":
                    raise TrialError(*value)
                place = left[value[0]]
                if kind == "progress":
                    job.on_progress(job.trials[place], value[1])
                elif not job.futures[place].done() and job.futures[place].set_running_or_notify_cancel():
                    job.futures[place].set_result(value[1])
        finally:
            if not done:  # replies of this job must never be taken for those of the next
                self.kill()
                self._process.join()

    def _send(self, request: bytes) -> None:
        try:
            self._requests.send_bytes(request)
        except OSError as error:
            raise EOFError from error

    def _receive(self) -> tuple[str, Any]:
        try:
            return self._replies.recv()  # type: ignore[no-any-return]
        except OSError as error:
            raise EOFError from error

    def is_alive(self) -> bool:
        return not self._killed and self._process.is_alive()  # the signal may still be on its way

    def cause_of_death(self) -> str:
        """How the process ended, as a predicate."""
        self._process.join()
        code = self._process.exitcode or 0
        if code >= 0:
            return f"ended with status {code}"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._killed = True
        self._process.kill()

    def close(self) -> None:
        self._process.join()
        self._process.close()
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


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        share, period = quota.read_text().split()
        if share != "max":
            cores = min(cores, math.ceil(int(share) / int(period)))
    return cores


def _visible_gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
