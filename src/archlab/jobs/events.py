"""The events of a run, in the order in which they happen. Live views, logs and loggers listen to them.

A listener is any function of one event. The scheduler calls the listeners in its own thread.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from archlab.store.ledger import Described


class Job(Described, Protocol):
    """A piece of work that is computed at most once: a trial, or the training run of a language model."""

    @property
    def flops(self) -> float:
        """FLOPs that the job takes if it runs to its end."""

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""

    @property
    def origin(self) -> str:
        """The modules from outside archlab that compute the job; empty if there are none. Jobs of different origins share no
        process."""


@dataclass(frozen=True)
class RunStarted:
    """A run has begun; all its jobs, those with a stored result included."""

    jobs: tuple[Any, ...]
    num_workers: int


@dataclass(frozen=True)
class JobReused:
    """The store has the result already, from before or from another run that works on the same store."""

    job: Any
    result: Any


@dataclass(frozen=True)
class ResultsDamaged:
    """Results in the store cannot be read: their jobs are computed again."""

    reasons: dict[str, str]
    """One line for each, by the key of the job."""


@dataclass(frozen=True)
class JobStarted:
    """A worker has been given the job."""

    job: Any


@dataclass(frozen=True)
class JobProgressed:
    """A running job reports about itself."""

    job: Any
    progress: Any


@dataclass(frozen=True)
class JobFinished:
    """The result is in the store."""

    job: Any
    result: Any


@dataclass(frozen=True)
class JobFailed:
    """The job gave no result; the others go on."""

    job: Any
    error: str
    """The reason: one line, then the end of the traceback if there is one."""

    @property
    def reason(self) -> str:
        """The reason in one line."""
        return self.error.partition("\n")[0]


@dataclass(frozen=True)
class JobsSkipped:
    """The policy has found that these jobs are not needed; they are not computed, or not to the end."""

    jobs: tuple[Any, ...]


@dataclass(frozen=True)
class Waiting:
    """Everything that is left is being computed by other runs on this store; their results will be reused."""

    jobs: tuple[Any, ...]


@dataclass(frozen=True)
class RunEnded:
    """The run is over; with ``interrupted`` before its time (Ctrl-C, a store that cannot be written, or any other error)."""

    summary: "RunSummary"
    interrupted: bool = False


Event = (
    RunStarted
    | JobReused
    | ResultsDamaged
    | JobStarted
    | JobProgressed
    | JobFinished
    | JobFailed
    | JobsSkipped
    | Waiting
    | RunEnded
)
Listener = Callable[[Event], None]


@dataclass(kw_only=True)
class RunSummary:
    """The outcome of a run."""

    results: dict[str, Any] = field(default_factory=dict)
    """Results by key: the reused and the computed ones."""
    total: int
    reused: int = 0
    computed: int = 0
    """Computed by this run, diverged and dropped jobs included."""
    skipped: int = 0
    """Not computed because the policy found them unnecessary."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons of the failed jobs by key, one line each."""
    started: float = field(default_factory=time.monotonic)
    wall_seconds: float = 0.0

    def count(self, status: str) -> int:
        """Number of results with this status (``"diverged"``, ``"dropped"``) among the reused and the computed ones."""
        return sum(result.status == status for result in self.results.values())
