"""Runs jobs in single-threaded worker processes on this machine."""

import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, spawn
from multiprocessing.connection import wait
from typing import Any

from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.jobs.executor import J, JobError, P, R, Work
from archlab.jobs.limits import LEAST_BYTES, Printed, kill_started, seconds_for, too_long
from archlab.jobs.slots import Group, SlotExecutor, Worker
from archlab.jobs.worker import STOPPED, WORKER_VARIABLE, environment, serve
from archlab.machine import Device, available_bytes, available_cores, visible_gpus


class LocalExecutor(SlotExecutor[J, P, R]):
    """One single-threaded worker process a core, or one a GPU.

    A worker is replaced when a job has changed the state of its process, so no job can change the result of another. When this
    process dies, its workers end by themselves. Jobs are held to the limits of :mod:`archlab.jobs.limits`.
    """

    def __init__(
        self,
        work: Work[J, P, R],
        num_workers: int | None = None,
        *,
        device: Device = "cpu",
        time_limit: float | None = None,
        share: float = 1.0,
        memory: int = 0,
    ) -> None:
        """Start no worker yet.

        By default there is one worker a core that this process may use, or one a GPU; those of ``"cuda"`` take the GPUs in turn.
        A job may take ``time_limit`` minutes, by default as predicted. On a CPU a worker may take its part of a ``share`` of the
        memory that is free now, and ``memory`` bytes, which were set aside for it, in any case. Refuses fewer than one worker, a
        device that is not there, and a process that is itself a worker.
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
        super().__init__(num_workers or (len(self._gpus) if self._gpus else available_cores()))
        self._work, self._time_limit = work, time_limit
        part = int(available_bytes() * share / self.num_workers)
        self._memory = max(part, LEAST_BYTES + memory) if device == "cpu" else None  # CUDA maps more than it uses

    @override
    def start(self, slot: int, origin: str) -> Worker[J, P, R]:
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        return _Worker(self._work, gpu, origin, self._time_limit, self._memory)


class _Worker(Worker[J, P, R]):
    """The parent's end of a worker process."""

    def __init__(self, work: Work[J, P, R], gpu: str | None, origin: str, time_limit: float | None, memory: int | None) -> None:
        self.origin, self._time_limit = origin, time_limit
        context = multiprocessing.get_context("spawn")
        requests, self._requests = context.Pipe(duplex=False)
        self._replies, replies = context.Pipe(duplex=False)
        self._output, output = context.Pipe(duplex=False)
        self._pipes = [self._replies, self._output]  # those that say something
        self._printed = Printed()
        self._killed = False
        self._name = uuid.uuid4().hex
        resource_tracker.ensure_running()  # it serves all workers, and must not have the name of one
        with _inherited(environment(self._name, gpu)), _without_script() as script:
            arguments = (requests, replies, output, pickle.dumps(work), script, memory)
            self.process = context.Process(target=serve, args=arguments, daemon=True)
            self.process.start()
        for ours in (requests, replies, output):
            ours.close()

    @override
    def run(self, group: Group[J, P, R]) -> None:
        left = [index for index, future in enumerate(group.futures) if not future.done()]
        jobs = [group.jobs[index] for index in left]
        request = pickle.dumps((jobs, [dict(group.thresholds[index]) for index in left]))
        done = False
        try:
            futures = [group.futures[index] for index in left]
            for kind, value in self._replies_to(request, futures, seconds_for(jobs, self._time_limit)):
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

    def _replies_to(self, request: bytes, futures: Sequence[Future[R]], seconds: float | None) -> Iterator[tuple[str, Any]]:
        """Hear what the worker says of a request, for so many seconds once it begins; pass on what it prints meanwhile, and tell
        it which of the request's jobs are stopped."""
        self._printed = Printed()
        deadline, told = math.inf, set[int]()
        try:
            self._requests.send_bytes(request)
            while True:
                ready = wait(self._pipes, 1.0)
                self._pass_on()
                stopped = {index for index, future in enumerate(futures) if future.cancelled()} - told
                for index in stopped:
                    self._requests.send_bytes(STOPPED + b"%d" % index)
                told |= stopped
                if self._replies in ready:
                    reply = self._replies.recv()
                    if reply[0] != "begun":
                        yield reply
                    elif seconds is not None:
                        deadline = time.monotonic() + seconds
                elif not self.process.is_alive() and not self._replies.poll():  # a child of it may hold the pipe open
                    raise EOFError
                if seconds is not None and time.monotonic() > deadline:
                    raise JobError(too_long(seconds), self._printed.last)
        except OSError as error:
            raise EOFError from error

    def _pass_on(self) -> None:
        """Pass on what the worker has printed, as much as a pipe holds."""
        if self._output in self._pipes and self._output.poll():
            text = os.read(self._output.fileno(), 1 << 16)
            self._printed.take(text)
            if not text:  # all who could write have closed it
                self._pipes.remove(self._output)

    @override
    def is_alive(self) -> bool:
        return not self._killed and self.process.is_alive()  # the signal may still be on its way

    @override
    def cause_of_death(self) -> tuple[str, str]:
        self.process.join()
        self._pass_on()
        code = self.process.exitcode or 0
        name = signal.Signals(-code).name if code < 0 else ""
        how = f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else self._printed.place)
        return how if name else f"ended with status {code}", self._printed.last

    @override
    def terminate(self) -> None:
        self.process.terminate()

    @override
    def kill(self) -> None:
        self._killed = True
        with suppress(ProcessLookupError, PermissionError):  # it leads a group as soon as it serves
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()
        kill_started(WORKER_VARIABLE, self._name)

    @override
    def close(self) -> None:
        self.process.join()
        self.process.close()
        for pipe in (self._requests, self._replies, self._output):
            pipe.close()


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
