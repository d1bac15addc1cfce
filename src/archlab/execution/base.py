"""The executor contract."""

from collections.abc import Callable
from concurrent.futures import Future
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from archlab.training.trial import Hurdles, Progress, Trial, TrialResult

    OnProgress = Callable[[Progress], None]
    Train = Callable[[Trial, OnProgress, Hurdles], TrialResult]


NO_HURDLES: "Hurdles" = MappingProxyType({})


class Executor(Protocol):
    """Where trials run. A context manager: leaving it shuts the executor down."""

    @property
    def num_workers(self) -> int:
        """Trials that run at once."""
        ...

    def submit(self, trial: "Trial", on_progress: "OnProgress", hurdles: "Hurdles" = NO_HURDLES) -> "Future[TrialResult]":
        """Run a trial as soon as a worker is free, in the order of submission.

        ``on_progress`` is called from any thread while the trial runs. ``hurdles`` say when it is dropped.

        Returns:
            A future with the result. Its exception is :class:`TrialError` if the trial raised,
            :class:`WorkerDiedError` if it took its worker with it on every attempt, and
            ``concurrent.futures.CancelledError`` if it was stopped, or the executor shut down, before it ended.
        """
        ...

    def stop(self, future: "Future[TrialResult]") -> None:
        """End a submitted trial at once if it has not ended; the others are not touched."""
        ...

    def shutdown(self) -> None:
        """End at once: trials that run are killed, those that wait are cancelled. May be called again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class TrialError(Exception):
    """A trial raised an exception.

    ``str()`` is its reason in one line.
    """

    def __init__(self, reason: str, traceback: str) -> None:
        """Args: the reason in one line, and the end of the traceback."""
        super().__init__(reason, traceback)
        self.reason, self.traceback = reason, traceback

    def __str__(self) -> str:
        return self.reason


class WorkerDiedError(Exception):
    """A trial's worker died on every attempt; says of what."""
