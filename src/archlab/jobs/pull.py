"""Pull workers: machines that compute what runs have submitted to a store, and runs that leave their jobs to them.

A worker drives a :class:`archlab.jobs.running.Run` for every open submission, as the submitter would, over one executor.
"""

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, NoReturn

from typing_extensions import override

from archlab.errors import ArchlabError, in_one_line
from archlab.jobs.events import Listener, RunSummary
from archlab.jobs.executor import Executor, Thresholds, Work
from archlab.jobs.policy import J, Policy, R
from archlab.jobs.running import Messages, Run
from archlab.jobs.scheduler import listen, run
from archlab.machine import Device
from archlab.store.ledger import Ledger, Record
from archlab.store.runs import Lines
from archlab.store.submissions import Submission, Submissions

LOOK_SECONDS = 2.0
"""Time between two looks at the submissions."""
GRACE_SECONDS = 30.0
"""Time that running jobs have to write a checkpoint when their worker ends."""


class Elsewhere(Executor[Any, Any, Any]):
    """The executor of a run whose jobs `archlab work` computes: it has no workers, and its run waits for their results."""

    def __init__(
        self,
        work: Work[Any, Any, Any],
        num_workers: int | None = None,
        *,
        device: Device = "cpu",
        time_limit: float | None = None,
    ) -> None:
        """Take nothing but the choice of this executor; refuses what is said where workers are started."""
        if time_limit is not None:
            raise ArchlabError(f"time_limit={time_limit:g} (--time-limit): give it to `archlab work`")
        if num_workers is not None:
            raise ArchlabError(f"workers={num_workers} (--workers): `archlab work --slots {num_workers}` says how many there are")
        self.num_workers = 0

    @override
    def submit(
        self, jobs: Sequence[Any], on_progress: Callable[[Any, Any], None], thresholds: Sequence[Thresholds] | None = None
    ) -> NoReturn:
        raise NotImplementedError("jobs are submitted to the store")

    @override
    def stop(self, future: Future[Any]) -> None:
        pass

    @override
    def shutdown(self, grace: float = 0.0) -> None:
        pass


def submit(
    jobs: Sequence[J],
    store: Ledger[J, R],
    what: dict[str, Any],
    *,
    number: int,
    priority: int,
    executor: Executor[J, Any, R],
    policy: Policy[J, R],
    listeners: Sequence[Listener] = (),
    known: Sequence[Record[J, Any]] = (),
) -> RunSummary:
    """Submit the jobs of a run to the workers of its store, and wait for their results.

    Whoever waits may leave: the workers go on. Jobs that failed before are tried again.

    Args:
        jobs: all jobs of the run, those with a result included.
        store: where results come.
        what: the jobs as those who read submissions of the ledger's kind understand them.
        number: that of the run.
        priority: workers take the highest first.
        executor: :class:`Elsewhere`.
        policy, listeners, known: as those of :func:`archlab.jobs.scheduler.run`.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    keys = [job.key for job in jobs]
    submissions = Submissions(store)
    if not any(one.keys == keys for one in submissions.open()):
        store.delete([record.key for record in store.outcomes(keys, ["failed"], unreadable={})])
    submitted = submissions.submit(number, store.kind, what, keys, priority)
    summary = run(jobs, store, executor, policy=policy, listeners=listeners, known=known, shared=True)
    submissions.close_one(submitted, "ended")
    return summary


@dataclass(frozen=True)
class Order(Generic[J, R]):
    """A submission as a worker understands it."""

    jobs: Sequence[J]
    """Those that it can compute."""
    left: str
    """Why it leaves others, if it does; one line."""
    store: Ledger[J, R]
    policy: Policy[J, R]
    listeners: Sequence[Listener] = ()


Reader = Callable[[Submission, Submissions], Order[Any, Any]]
"""Reads submissions of a kind. It imports nothing and runs no code that a submission names."""


def work(
    submissions: Submissions,
    executor: Executor[Any, Any, Any],
    readers: Mapping[str, Reader],
    *,
    tell: Callable[[str], object],
    max_seconds: float | None = None,
    max_idle: float | None = None,
) -> int:
    """Compute what is submitted to a store until nothing more is asked for; the number of jobs that were computed.

    Args:
        submissions: those of the store.
        executor: where jobs are computed; it takes those of all kinds.
        readers: by the kind of submissions.
        tell: takes lines for whoever reads the worker's output.
        max_seconds: takes no new job after so long; for ever by default.
        max_idle: ends after so many seconds without anything to do; by default it waits.

    Raises:
        KeyboardInterrupt: after Ctrl-C or a request to end; claims are given back.
        ArchlabError: the store can no longer be written, or is gone.
    """
    started = busy = time.monotonic()
    messages: Messages = queue.SimpleQueue()
    runs: dict[int, Run[Any, Any]] = {}
    asked: list[Submission] = []
    seen: dict[int, bool] = {}  # whether all of a submission is this worker's
    damaged: Lines = {}
    next_look, computed, told = 0.0, 0, 0
    try:
        while True:
            now = time.monotonic()
            if now >= next_look:
                asked, next_look = submissions.open(damaged), now + LOOK_SECONDS
                for line in list(damaged.values())[told:]:
                    tell(line)
                told = len(damaged)
                for number in runs.keys() - {one.number for one in asked}:
                    runs[number].withdraw()
                for one in asked:
                    if one.number not in seen and (max_seconds is None or now - started < max_seconds):
                        seen[one.number] = _begin(one, runs, submissions, executor, readers, messages, tell)
            over = max_seconds is not None and now - started >= max_seconds
            for one in asked:
                if one.number in runs and not over:
                    runs[one.number].submit(executor.num_workers - sum(each.groups for each in runs.values()))
            for number, each in [*runs.items()]:
                if each.is_over:
                    each.end()
                    computed += each.summary.computed
                    del runs[number]
                    if seen[number]:
                        submissions.close_one(number, "ended")
            if any(each.running for each in runs.values()):
                busy = now
            elif over or (max_idle is not None and now - busy >= max_idle):
                for each in runs.values():
                    each.abort()
                    computed += each.summary.computed
                return computed
            listen(runs.values(), messages)
    except BaseException:
        executor.shutdown(GRACE_SECONDS)
        for each in runs.values():
            each.abort()
        raise


def _begin(
    one: Submission,
    runs: dict[int, Run[Any, Any]],
    submissions: Submissions,
    executor: Executor[Any, Any, Any],
    readers: Mapping[str, Reader],
    messages: Messages,
    tell: Callable[[str], object],
) -> bool:
    """Begin the run of a submission; whether all of it is this worker's. Says once what is left to others."""
    name = f"run {one.run}" if one.run is not None else f"submission {one.number}"
    try:
        order = readers[one.kind](one, submissions)
    except Exception as error:  # the row may hold anything
        why = "" if isinstance(error, ArchlabError) else "it is damaged, or of another version of archlab: "
        tell(f"{name} is left to others: {why}{in_one_line(error)}")
        return False
    if order.left:
        tell(f"{name}: {order.left}")
    if order.jobs:
        each = runs[one.number] = Run(
            order.jobs, order.store, executor, messages, policy=order.policy, listeners=order.listeners, shared=True
        )
        each.begin()
    return len(order.jobs) == len(one.keys)
