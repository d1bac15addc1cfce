"""Computes the trials that a store lacks."""

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from archlab.errors import ArchlabError
from archlab.jobs.executor import Executor, explained
from archlab.mad.racing import Race, Racing
from archlab.mad.trial import Progress, Trial, TrialResult, alike

if TYPE_CHECKING:
    from archlab.mad.store import Store

HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.5
"""How often trials that another run holds are looked at."""


@dataclass(frozen=True)
class TrialReused:
    """The store has the result already, from before or from another run that works on the same store."""

    trial: Trial
    result: TrialResult


@dataclass(frozen=True)
class TrialStarted:
    """A worker has been given the trial."""

    trial: Trial


@dataclass(frozen=True)
class TrialProgressed:
    """The trial reports about itself."""

    trial: Trial
    progress: Progress


@dataclass(frozen=True)
class TrialFinished:
    """The result is in the store."""

    trial: Trial
    result: TrialResult


@dataclass(frozen=True)
class TrialFailed:
    """The trial gave no result; the others go on."""

    trial: Trial
    error: str
    """The reason: one line, then the end of the traceback if there is one."""

    @property
    def reason(self) -> str:
        """The reason in one line."""
        return self.error.partition("\n")[0]


@dataclass(frozen=True)
class TrialsSkipped:
    """A sibling has solved its setting: these can no longer change a score, and are not computed."""

    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Waiting:
    """All that is left is being computed by other runs on this store; their results will be reused."""

    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class RunInterrupted:
    """The run ends early (Ctrl-C, or a store that cannot be written); what it stored stays."""

    summary: "RunSummary"


Event = TrialReused | TrialStarted | TrialProgressed | TrialFinished | TrialFailed | TrialsSkipped | Waiting | RunInterrupted


@dataclass(kw_only=True)
class RunSummary:
    """What became of the trials of a run."""

    total: int
    reused: int = 0
    computed: int = 0
    """Computed by this run, the diverged and the dropped ones included."""
    skipped: int = 0
    """Not computed, since a sibling had solved the setting."""
    dropped: int = 0
    """Dropped ones among the reused and the computed."""
    diverged: int = 0
    """Diverged ones among the reused and the computed."""
    failed: dict[Trial, str] = field(default_factory=dict)
    """Failed trials with their reasons, one line each."""
    wall_seconds: float = 0.0
    examples: int = 0
    """Training sequences that this run's finished trials have seen."""


def run(
    trials: Sequence[Trial],
    store: "Store",
    executor: Executor,
    on_event: Callable[[Event], None] = lambda _: None,
    race: Race = "off",
    population: int = 1,
) -> RunSummary:
    """Compute those of the trials that the store has no result for, and store every result as it comes.

    Trials run in the given order, as far as the race allows, as many at once as the executor has workers. Trials that
    another run on the same store computes are waited for, and taken over if that run dies. A trial that fails does not
    stop the others; the next run tries it again.

    Args:
        trials: what to compute; duplicates count once.
        store: where results are and go. Only trials that this run has claimed are computed.
        executor: where trials run; shut down if the run ends early.
        on_event: told of everything that happens, in this thread.
        race: which trials need not be computed (to the end), see :mod:`archlab.mad.racing`.
        population: how many trials that are alike a worker trains together at most.

    Raises:
        KeyboardInterrupt: after Ctrl-C, with the claims given back and :class:`RunInterrupted` told.
        ArchlabError: the store can no longer be written; what it holds is intact.
    """
    return _Run(trials, store, executor, on_event, race, population).run()


@dataclass(frozen=True)
class _InFlight:
    """A trial that the executor has."""

    trial: Trial
    future: Future[TrialResult]
    since: datetime
    group: tuple[Trial, ...]
    """The trials that it is trained together with, itself included."""


class _Run:
    def __init__(
        self,
        trials: Sequence[Trial],
        store: "Store",
        executor: Executor,
        on_event: Callable[[Event], None],
        race: Race,
        population: int,
    ) -> None:
        self.store, self.executor, self.on_event, self.population = store, executor, on_event, population
        self.pending = {trial.key: trial for trial in trials}
        self.racing = Racing(self.pending.values(), race)
        self.in_flight: dict[str, _InFlight] = {}
        self.stopped: set[str] = set()
        self.messages: queue.SimpleQueue[tuple[Trial, Progress | Future[TrialResult]]] = queue.SimpleQueue()
        self.summary = RunSummary(total=len(self.pending))
        self.started = time.monotonic()
        self.last_heartbeat = self.started
        self.waiting_for: tuple[str, ...] = ()

    def run(self) -> RunSummary:
        try:
            self._reuse()
            while self.pending or self.in_flight:
                self._submit()
                self._listen()
        except BaseException as error:
            self._stop()
            if isinstance(error, KeyboardInterrupt | ArchlabError):
                self.on_event(RunInterrupted(self._timed_summary()))
            raise
        self.store.release()
        return self._timed_summary()

    def _timed_summary(self) -> RunSummary:
        self.summary.wall_seconds = time.monotonic() - self.started
        return self.summary

    def _reuse(self) -> None:
        """Take over what the store has, from before or from other runs, and leave out what it makes unnecessary."""
        unneeded: list[Trial] = []
        for record in self.store.records(keys=self.pending, statuses=self.racing.settled):
            assert record.result is not None
            trial = self.pending.pop(record.key)
            self.summary.reused += 1
            self._count(record.result)
            self.on_event(TrialReused(trial, record.result))
            unneeded += self.racing.told(trial, record.result)
        self._skip(unneeded)

    def _count(self, result: TrialResult) -> None:
        self.summary.diverged += result.status == "diverged"
        self.summary.dropped += result.status == "dropped"

    def _skip(self, trials: Sequence[Trial]) -> None:
        """Leave these trials out; those that run are stopped, and left out once they have ended."""
        waiting = tuple(trial for trial in trials if self.pending.pop(trial.key, None))
        if waiting:
            self.summary.skipped += len(waiting)
            self.on_event(TrialsSkipped(waiting))
        for trial in trials:
            if trial.key in self.in_flight:
                self.stopped.add(trial.key)
                self.executor.stop(self.in_flight[trial.key].future)

    def _submit(self) -> None:
        """Give every free worker trials that what is known by now does not make unnecessary."""
        free = self.executor.num_workers - len({one.group for one in self.in_flight.values()})
        if not free or not self.pending:
            return
        self._reuse()
        candidates = self.racing.order(self.pending, [one.trial for one in self.in_flight.values()])
        for first in self.store.claim(candidates, free, self.racing.settled):
            self._submit_group((first, *self._companions(first, candidates)))
        held = tuple(self.pending)
        if held and not self.in_flight and held != self.waiting_for:
            self.waiting_for = held
            self.on_event(Waiting(tuple(self.pending.values())))

    def _companions(self, first: Trial, candidates: Sequence[Trial]) -> list[Trial]:
        """Claim trials for the worker to train together with the first."""
        fitting = [t for t in candidates if t.key in self.pending and t.key != first.key and alike(t) == alike(first)]
        return self.store.claim(fitting, self.population - 1, self.racing.settled) if self.population > 1 else []

    def _submit_group(self, group: tuple[Trial, ...]) -> None:
        for trial in group:
            del self.pending[trial.key]
            self.on_event(TrialStarted(trial))
        futures = self.executor.submit(group, self._forward_progress, [self.racing.hurdles(trial) for trial in group])
        for trial, future in zip(group, futures, strict=True):
            self.in_flight[trial.key] = _InFlight(trial, future, datetime.now(UTC), group)
            future.add_done_callback(self._forward_end(trial))

    def _forward_progress(self, trial: Trial, progress: Progress) -> None:
        self.messages.put((trial, progress))

    def _forward_end(self, trial: Trial) -> Callable[[Future[TrialResult]], None]:
        return lambda future: self.messages.put((trial, future))

    def _listen(self) -> None:
        """Handle the next message, if one comes in time, and stay alive in the eyes of others."""
        with suppress(queue.Empty):
            trial, message = self.messages.get(timeout=POLL_SECONDS)
            if isinstance(message, Future):
                self._settle(trial, message)
            else:
                self.on_event(TrialProgressed(trial, message))
        if self.in_flight and time.monotonic() - self.last_heartbeat > HEARTBEAT_SECONDS:
            self.store.heartbeat()
            self.last_heartbeat = time.monotonic()

    def _settle(self, trial: Trial, future: Future[TrialResult]) -> None:
        try:
            result = future.result()
        except CancelledError:
            if trial.key not in self.stopped:
                raise
            self.store.give_back(trial)
            del self.in_flight[trial.key]
            self.summary.skipped += 1
            self.on_event(TrialsSkipped((trial,)))
        except Exception as error:
            self._record_failure(trial, error)
        else:
            self._record_result(trial, result)
            self.on_event(TrialFinished(trial, result))
            self._skip(self.racing.told(trial, result))

    def _record_result(self, trial: Trial, result: TrialResult) -> None:
        self.store.finish(trial, result, self._provenance(trial))
        del self.in_flight[trial.key]
        self.summary.computed += 1
        self._count(result)
        self.summary.examples += trial.recipe.num_examples(trial.setting.num_train_examples, result.steps)

    def _record_failure(self, trial: Trial, error: Exception) -> None:
        reason, text = explained(error)
        self.store.fail(trial, text, self._provenance(trial))
        del self.in_flight[trial.key]
        self.summary.failed[trial] = reason
        self.on_event(TrialFailed(trial, text))

    def _provenance(self, trial: Trial) -> dict[str, Any]:
        from archlab.store.provenance import provenance

        return provenance(trial.device, self.in_flight[trial.key].since)

    def _stop(self) -> None:
        """End the workers, keep what they have finished, give the rest back."""
        self.executor.shutdown()
        with suppress(ArchlabError):
            while not self.messages.empty():
                trial, message = self.messages.get()
                if isinstance(message, Future) and not message.cancelled() and message.exception() is None:
                    self._record_result(trial, message.result())
        with suppress(ArchlabError):
            self.store.release()
