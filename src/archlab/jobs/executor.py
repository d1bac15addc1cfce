"""The executor contract: where jobs run, and what a scheduler may rely on."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, Self, TypeVar

from archlab.errors import ArchlabError, unknown
from archlab.machine import Device

J = TypeVar("J")
P = TypeVar("P")
R = TypeVar("R")
P_co = TypeVar("P_co", covariant=True)

Thresholds = Mapping[int, float]
"""Pruning thresholds by evaluated step: a job whose validation loss is higher there is dropped."""

Work = Callable[[Sequence[J], Callable[[int, P], None], Sequence[Thresholds]], Iterable[tuple[int, R]]]
"""Computes a group of jobs: takes the jobs, a listener for ``(index, progress)`` and each job's pruning thresholds; yields
``(index, result)`` as soon as a job ends. A function that can be pickled."""


class Executor(Protocol[J, P_co, R]):
    """Where jobs run. A context manager: leaving it shuts the executor down.

    An implementation inherits from it; its constructor takes what :func:`make_executor` gives: its :data:`Work`, the number of
    workers, and by name the device and its options. :class:`archlab.testing.ExecutorContract` checks the rest.
    """

    num_workers: int
    """Groups of jobs that run at once."""
    memory: int | None = None
    """Bytes that a worker needs at its peak, for an executor that looks for a place for it; None if that is not known."""

    def submit(
        self, jobs: Sequence[J], on_progress: Callable[[J, P_co], None], thresholds: Sequence[Thresholds] | None = None
    ) -> list[Future[R]]:
        """Compute jobs together in one worker as soon as one is free, in the order of submission.

        Args:
            jobs: one, or several that can be computed together.
            on_progress: called from any thread while the jobs run.
            thresholds: pruning thresholds of each job; none by default.

        Returns:
            For each job a future with its result. Its exception is :class:`JobError` if the work raised,
            :class:`WorkerDiedError` if it took its worker with it on every attempt, and
            ``concurrent.futures.CancelledError`` if the job was stopped, or the executor shut down, before it ended. On other
            machines it has an attribute ``environment``, see :func:`archlab.store.provenance.environment`.
        """

    def stop(self, future: Future[R]) -> None:
        """End a submitted job if it has not ended; the others are not touched.

        Its worker is free at once, or when the last job that is computed together with it has ended; in a worker process the
        job's thresholds are below every loss from then on.
        """

    def shutdown(self, grace: float = 0.0) -> None:
        """End at once: jobs that wait are cancelled, those that run are killed. May be called again.

        Args:
            grace: seconds that running jobs have to end by themselves, after a SIGTERM, before they are killed.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class JobError(Exception):
    """A job raised an exception: the reason in one line, which is its text, and the end of the traceback."""

    def __init__(self, reason: str, traceback: str) -> None:
        super().__init__(reason, traceback)
        self.reason, self.traceback = reason, traceback

    def __str__(self) -> str:
        return self.reason


class WorkerDiedError(JobError):
    """A job's worker died on every attempt: the message says how, and the traceback is the last that it printed."""


EXECUTORS = {
    "local": "archlab.jobs.local:LocalExecutor",
    "ray": "archlab.jobs.ray:RayExecutor",
    "workers": "archlab.jobs.pull:Elsewhere",
}
"""Every executor by the name that ``--executor`` takes: the module and class that implement it."""


def make_executor(
    work: Work[J, P, R],
    num_workers: int | None = None,
    *,
    device: Device = "cpu",
    name: str = "local",
    submits: bool = False,
    time_limit: float | None = None,
) -> Executor[J, P, R]:
    """The executor with this name, a key of :data:`EXECUTORS`, with its own choice of ``num_workers`` by default.

    The address of a Ray cluster may stand behind its name, as in ``"ray:auto"``. A job may take ``time_limit`` minutes, by
    default as :func:`archlab.jobs.limits.seconds_for` predicts. Refuses a name that is unknown, an executor that cannot start
    here, and ``"workers"``, which has no workers of its own, unless the caller ``submits`` what it wants.
    """
    name, colon, address = name.partition(":")
    if name not in EXECUTORS or (colon and name != "ray"):
        raise unknown("executor", name + colon + address, EXECUTORS)
    if name == "workers" and not submits:
        raise ArchlabError("executor='workers': only runs and training runs are submitted: choose local or ray")
    module, _, attribute = EXECUTORS[name].partition(":")
    implementation: Any = getattr(importlib.import_module(module), attribute)
    given = {"address": address or None, "time_limit": time_limit}
    options = {name: value for name, value in given.items() if value is not None}
    made: Executor[J, P, R] = implementation(work, num_workers, device=device, **options)
    return made
