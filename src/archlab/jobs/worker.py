"""The loop of a worker process: groups of jobs, one after the other, until the parent is gone."""

import faulthandler
import math
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import parent_process, spawn
from multiprocessing.connection import Connection, wait
from typing import Any

from typing_extensions import override

from archlab import isolation
from archlab.errors import ArchlabError, in_one_line
from archlab.isolation import changed, definitions, replaced, snapshot
from archlab.jobs.executor import Work
from archlab.jobs.limits import limit_memory, out_of_memory

WORKER_VARIABLE = "ARCHLAB_WORKER"
"""In the environment of a worker and of all that its jobs start: the worker's name."""
STOPPED = b"stopped "
"""Begins a message that a job of the group was stopped, whose index follows; a pickled request never begins so."""
_TRACEBACK_LINES = 30
_TRACEBACK_CHARACTERS = 10_000
# A training step frees what the next one allocates. Given back to the system in between, every page of it is cleared
# again: up to a quarter of the time of a step at width 128. glibc maps no tensor apart, whatever its size; other systems
# ignore these.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}


def environment(name: str, gpu: str | None) -> dict[str, str]:
    """The variables of a worker's environment: its name, one thread each, and for a GPU worker its GPU."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    variables = dict.fromkeys(threads, "1") | _KEEP_MEMORY | {WORKER_VARIABLE: name}
    return variables if gpu is None else variables | {"CUDA_VISIBLE_DEVICES": gpu}


def serve(
    requests: Connection,
    replies: Connection,
    printed: Connection,
    pickled: bytes,
    script: dict[str, Any],
    memory: int | None,
) -> None:
    """Answer every group of jobs that comes in: that it is begun, progress and results, then its end or an error.

    What is printed goes to ``printed``. The work comes pickled; ``script`` is what ``multiprocessing`` needs to import the
    script of the parent; ``memory`` is how many bytes may be taken.
    """
    _print_to(printed)
    if memory is not None:
        limit_memory(memory)
    os.setsid()  # so that what a job starts can be ended with the worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if _needs_script(pickled):
        _import_script(script)
    work = pickle.loads(pickled)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
    while True:
        try:
            request = requests.recv_bytes()
        except EOFError:
            return
        if not request.startswith(STOPPED):  # else one of a group that has ended
            replies.send(_answer(request, _Stopped(requests), replies, work, script, memory))


def _print_to(printed: Connection) -> None:
    """Send standard output and standard error there, and where Python stood if a signal ends this process."""
    for stream in (1, 2):
        os.dup2(printed.fileno(), stream)
    printed.close()
    for text in (sys.stdout, sys.stderr):
        text.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(all_threads=False)


def _needs_script(pickled: bytes) -> bool:
    """Whether something names a definition of the parent's script, which is not imported yet."""
    return b"__main__" in pickled and not spawn.old_main_modules


def _import_script(script: dict[str, Any]) -> None:
    """Import the parent's script, which defines what a job needs; refuse one that changes what all jobs compute with.

    Keys hash the code of layers and tasks, not what their script sets beside. What it draws at random does no harm.
    """
    import torch

    before, defined, drawn = snapshot(), definitions(), torch.get_rng_state()
    spawn.prepare(script)
    torch.set_rng_state(drawn)
    torch.set_num_threads(1)
    if found := changed(before, started=False) or replaced(defined):
        raise ArchlabError(
            f"the script changes {found}, and with it the scores: do that under `if __name__ == '__main__':`, "
            "or move its layers and tasks into a file of their own and import that"
        )


@dataclass
class _Stopped:
    """The jobs of a group that were stopped while it is computed, as far as the parent has said so."""

    messages: Connection
    known: set[int] = field(default_factory=set)

    def __contains__(self, index: int) -> bool:
        while self.messages.poll():
            self.known.add(int(self.messages.recv_bytes().removeprefix(STOPPED)))
        return index in self.known


@dataclass
class _Thresholds(Mapping[int, float]):
    """Pruning thresholds of a job of a group; below every loss once it was stopped, so that it leaves the others alone."""

    given: Mapping[int, float]
    index: int
    stopped: _Stopped

    @override
    def __getitem__(self, step: int) -> float:
        return -math.inf if self.index in self.stopped else self.given[step]

    @override
    def __iter__(self) -> Iterator[int]:
        return iter(self.given)

    @override
    def __len__(self) -> int:
        return len(self.given)


def _answer(
    request: bytes, stopped: _Stopped, replies: Connection, work: Work[Any, Any, Any], script: dict[str, Any], memory: int | None
) -> tuple[str, Any]:
    """Compute a group of jobs; the last reply to a request, after the progress and the results of its jobs.

    It says what state of the process the jobs have changed, if any: such a process must serve no other job.
    """
    replies.send(("begun", None))
    before, outside, spoilt = snapshot(), True, ""
    try:
        if _needs_script(request):
            spoilt = "what it imports"  # if that fails half-way
            _import_script(script)
            before, spoilt = snapshot(), ""
        jobs, given = pickle.loads(request)
        thresholds = [_Thresholds(own, index, stopped) for index, own in enumerate(given)]
        outside = bool(getattr(jobs[0], "origin", ""))
        for ended in work(jobs, lambda index, progress: replies.send(("progress", (index, progress))), thresholds):
            replies.send(("result", ended))
        return "end", isolation.spoilt() or changed(before, started=outside)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: the code of a job may raise anything
        tail = "\n".join(traceback.format_exc().strip().splitlines()[-_TRACEBACK_LINES:])[-_TRACEBACK_CHARACTERS:]
        reason = out_of_memory(error, memory) + in_one_line(error)
        return "error", (reason, tail, isolation.spoilt() or spoilt or changed(before, started=outside))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers; a trial in a long operation would not notice."""
    parent: Any = parent_process()
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
