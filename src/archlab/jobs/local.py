"""Runs jobs in single-threaded worker processes on this machine."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import spawn
from typing import Any

from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.jobs.executor import J, JobError, P, R, Work
from archlab.jobs.slots import Group, SlotExecutor, Worker
from archlab.jobs.worker import WORKER_VARIABLE, environment, serve
from archlab.machine import Device, available_cores, visible_gpus


class LocalExecutor(SlotExecutor[J, P, R]):
    """One single-threaded worker process a core, or one a GPU.

    A worker is replaced when a job has changed the state of its process, so no job can change the result of another. When this
    process dies, its workers end by themselves.
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
        super().__init__(num_workers or (len(self._gpus) if self._gpus else available_cores()))
        self._work = work

    @override
    def start(self, slot: int, origin: str) -> Worker[J, P, R]:
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        return _Worker(self._work, gpu, origin)


class _Worker(Worker[J, P, R]):
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

    @override
    def run(self, group: Group[J, P, R]) -> None:
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

    @override
    def is_alive(self) -> bool:
        return not self._killed and self.process.is_alive()  # the signal may still be on its way

    @override
    def cause_of_death(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with status {code}"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    @override
    def terminate(self) -> None:
        self.process.terminate()

    @override
    def kill(self) -> None:
        self._killed = True
        with suppress(ProcessLookupError, PermissionError):  # it leads a group as soon as it serves
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()

    @override
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
