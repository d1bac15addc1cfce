"""The executor contract."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from archlab.mad.trial import Hurdles, Progress, Trial, TrialResult

    OnProgress = Callable[[Trial, Progress], None]
    Train = Callable[[Sequence[Trial], Callable[[int, Progress], None], Sequence[Hurdles]], Iterable[tuple[int, TrialResult]]]


class Executor(Protocol):
    """Where trials run. A context manager: leaving it shuts the executor down."""

    @property
    def num_workers(self) -> int:
        """Groups of trials that run at once."""
        ...

    def submit(
        self, trials: "Sequence[Trial]", on_progress: "OnProgress", hurdles: "Sequence[Hurdles] | None" = None
    ) -> "list[Future[TrialResult]]":
        """Train trials together in one worker as soon as one is free, in the order of submission.

        Args:
            trials: one, or several that are alike (:func:`archlab.mad.trial.alike`).
            on_progress: called from any thread while the trials run.
            hurdles: of each trial, when it is dropped; by default never.

        Returns:
            For each trial a future with its result. Its exception is :class:`TrialError` if the training raised,
            :class:`WorkerDiedError` if it took its worker with it on every attempt, and
            ``concurrent.futures.CancelledError`` if the trial was stopped, or the executor shut down, before it ended.
        """
        ...

    def stop(self, future: "Future[TrialResult]") -> None:
        """End a submitted trial if it has not ended; the others are not touched.

        Its worker is free at once, or when the last trial that it is trained together with has ended.
        """
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


def explained(error: BaseException) -> tuple[str, str]:
    """Why a future holds no result: the reason in one line, and with the end of the traceback where there is one."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason, f"{reason}\n{error.traceback}" if isinstance(error, TrialError) else reason
