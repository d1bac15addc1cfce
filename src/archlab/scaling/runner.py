"""Trains the language models of a plan that a store lacks: side by side, or one after the other over all processes."""

import importlib
import queue
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from archlab.corpora import Corpus, prepare
from archlab.errors import ArchlabError
from archlab.jobs.executor import explained
from archlab.jobs.local import LocalExecutor
from archlab.layers.external.check import is_third_party
from archlab.scaling.result import LMProgress, LMResult
from archlab.scaling.trial import LMTrial
from archlab.store.provenance import provenance
from archlab.store.record import SETTLED

if TYPE_CHECKING:
    from archlab.jobs.executor import OnProgress, Train
    from archlab.scaling.processes import Processes
    from archlab.scaling.store import LanguageModelStore

HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.5
GRACE_SECONDS = 30.0
"""What trainings have to write a checkpoint when the run is interrupted."""


@dataclass
class Tally:
    """How far the trainings of a plan are; what a person is shown."""

    trials: dict[str, LMTrial]
    """By key."""
    results: dict[str, LMResult] = field(default_factory=dict)
    reused: int = 0
    """Results that the store had, from before or from others that work on it."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons, one line each."""
    running: dict[str, LMProgress | None] = field(default_factory=dict)
    steps_before: dict[str, int] = field(default_factory=dict)
    """Of trainings that were taken up again: steps that others had computed."""
    flops: float = 0.0
    """Computed by this run, without what is running."""
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float | None:
        """At the speed so far; None before there is one."""
        computed = self.flops + sum(self._computed(key) for key in self.running)
        elapsed = time.monotonic() - self.started
        if not computed:
            return None
        left = [self.trials[key].run.flops for key in self.trials if key not in self.results and key not in self.failed]
        return max(sum(left) - sum(self._done(key) for key in self.running), 0) * elapsed / computed

    def _done(self, key: str) -> float:
        progress = self.running[key]
        return self.trials[key].run.flops * progress.step / progress.num_steps if progress else 0.0

    def _computed(self, key: str) -> float:
        progress, flops = self.running[key], self.trials[key].run.flops
        return flops * (progress.step - self.steps_before.get(key, 0)) / progress.num_steps if progress else 0.0


@dataclass(frozen=True)
class Event:
    """Something happened to a trial; the tally says how it stands now."""

    tally: Tally
    trial: LMTrial
    what: str
    """``reused``, ``started``, ``progress``, ``finished``, ``failed`` or ``waiting`` (another run computes it)."""


OnEvent = Callable[[Event], None]


@lru_cache(maxsize=4)
def corpus_of(source: str, tokenizer: str) -> Corpus:
    """The prepared corpus of a run."""
    return prepare(source, tokenizer)


def train_alone(
    trials: Sequence[LMTrial],
    on_progress: Callable[[int, LMProgress], None],
    hurdles: object,
    *,
    checkpoints: Path,
    modules: Sequence[str],
) -> Iterator[tuple[int, LMResult]]:
    """What a worker does: one trial after the other, each kept in a folder of its own among the checkpoints.

    The modules are those that make layers from outside archlab known.
    """
    from archlab.scaling.train import train

    for module in modules:
        importlib.import_module(module)
    for place, trial in enumerate(trials):
        corpus = corpus_of(trial.run.corpus, trial.run.tokenizer)
        trial.on(corpus)
        yield place, train(trial, corpus, checkpoints=checkpoints / trial.key, on_progress=partial(on_progress, place))


def make_executor(num_workers: int | None, device: str, checkpoints: Path, trials: Iterable[LMTrial]) -> LocalExecutor:
    """Workers that train these language models, one thread each."""
    layers = {layer for trial in trials for layer in trial.run.architecture.layers if is_third_party(layer)}
    modules = sorted({module for layer in layers for module in layer.modules()})
    # executors look at no trial
    train = cast("Train", partial(train_alone, checkpoints=checkpoints, modules=modules))
    return LocalExecutor(num_workers, device=cast(Any, device), train=train)


def run_side_by_side(
    trials: Sequence[LMTrial], store: "LanguageModelStore[LMTrial]", executor: LocalExecutor, checkpoints: Path, on_event: OnEvent
) -> Tally:
    """Compute those trials that the store has no result for, as many at once as there are workers, the dearest first.

    Every result is in the store as soon as it is there. A trial that fails does not stop the others; trials that another
    run on the same store computes are waited for.

    Raises:
        KeyboardInterrupt: after Ctrl-C; every training has written a checkpoint, and its claim is given back.
        ArchlabError: the store can no longer be written.
    """
    return _SideBySide(trials, store, executor, checkpoints, on_event).run()


class _SideBySide:
    def __init__(
        self,
        trials: Sequence[LMTrial],
        store: "LanguageModelStore[LMTrial]",
        executor: LocalExecutor,
        checkpoints: Path,
        on_event: OnEvent,
    ) -> None:
        self.store, self.executor, self.checkpoints, self.on_event = store, executor, checkpoints, on_event
        self.tally = Tally({trial.key: trial for trial in trials})
        self.pending = {t.key: t for t in sorted(self.tally.trials.values(), key=lambda t: -t.run.flops)}
        self.since: dict[str, datetime] = {}
        self.messages: queue.SimpleQueue[tuple[LMTrial, LMProgress | Future[Any]]] = queue.SimpleQueue()
        self.beat = time.monotonic()
        self.waiting: tuple[str, ...] = ()

    def run(self) -> Tally:
        try:
            while True:
                self._reuse()
                if not self.pending and not self.tally.running:
                    break
                self._submit()
                self._listen()
        except BaseException:
            self.executor.shutdown(GRACE_SECONDS)
            with suppress(ArchlabError):
                while not self.messages.empty():
                    trial, message = self.messages.get()
                    if isinstance(message, Future) and not message.cancelled() and message.exception() is None:
                        self._finish(trial, message.result())
            with suppress(ArchlabError):
                self.store.release()
            raise
        self.store.release()
        return self.tally

    def _tell(self, trial: LMTrial, what: str) -> None:
        self.on_event(Event(self.tally, trial, what))

    def _reuse(self) -> None:
        if len(self.tally.running) < self.executor.num_workers:
            for record in self.store.records(keys=self.pending, statuses=SETTLED):
                assert record.result is not None
                trial = self.pending.pop(record.key)
                if record.run != trial.to_dict():  # another plan called it something else
                    self.store.describe(trial)
                self.tally.results[record.key] = LMResult.from_dict(record.result)
                self.tally.reused += 1
                self._tell(trial, "reused")

    def _submit(self) -> None:
        free = self.executor.num_workers - len(self.tally.running)
        for trial in self.store.claim(list(self.pending.values()), free) if free else []:
            del self.pending[trial.key]
            self.tally.running[trial.key] = None
            self.since[trial.key] = datetime.now(UTC)
            self._tell(trial, "started")
            (future,) = self.executor.submit(cast(Any, [trial]), cast("OnProgress", lambda *message: self.messages.put(message)))
            future.add_done_callback(partial(_put, self.messages, trial))
        held = tuple(self.pending)
        if held and not self.tally.running and held != self.waiting:
            self.waiting = held
            self._tell(self.pending[held[0]], "waiting")

    def _listen(self) -> None:
        with suppress(queue.Empty):
            trial, message = self.messages.get(timeout=POLL_SECONDS)
            if isinstance(message, LMProgress):
                self.tally.steps_before[trial.key] = message.begun
                self.tally.running[trial.key] = message
                self._tell(trial, "progress")
            elif (error := message.exception()) is None:
                self._finish(trial, message.result())
                self._tell(trial, "finished")
            else:
                self._fail(trial, error)
                self._tell(trial, "failed")
        if self.tally.running and time.monotonic() - self.beat > HEARTBEAT_SECONDS:
            self.store.heartbeat()
            self.beat = time.monotonic()

    def _finish(self, trial: LMTrial, result: LMResult) -> None:
        self.store.finish(trial, result.to_dict(), provenance(trial.device, self.since[trial.key]))
        _drop(self.checkpoints / trial.key)
        before = self.tally.steps_before.get(trial.key, 0)
        self.tally.flops += trial.run.flops * (result.steps - before) / trial.run.steps
        self.tally.results[trial.key] = result
        self.tally.running.pop(trial.key, None)

    def _fail(self, trial: LMTrial, error: BaseException) -> None:
        reason, text = explained(error)
        self.store.fail(trial, text, provenance(trial.device, self.since[trial.key]))
        self.tally.failed[trial.key] = reason
        self.tally.running.pop(trial.key, None)


def _put(messages: "queue.SimpleQueue[Any]", trial: LMTrial, future: "Future[Any]") -> None:
    if not future.cancelled():
        messages.put((trial, future))


def run_together(
    trials: Sequence[LMTrial],
    store: "LanguageModelStore[LMTrial] | None",
    processes: "Processes",
    checkpoints: Path,
    on_event: OnEvent,
) -> Tally:
    """Compute those trials that the store has no result for, one after the other, each over all the processes.

    Args:
        trials: what to train, the same in every process.
        store: where results are and go; the first process has it, the others have none.
        processes: those that share each model.
        checkpoints: a folder that all of them see.
        on_event: told of what happens, in the first process.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; a checkpoint has been written.
    """
    from archlab.scaling.train import train

    tally = Tally({trial.key: trial for trial in trials})

    def tell(trial: LMTrial, what: str) -> None:
        if processes.is_first:
            on_event(Event(tally, trial, what))

    def progressed(trial: LMTrial, progress: LMProgress) -> None:
        tally.steps_before[trial.key] = progress.begun
        tally.running[trial.key] = progress
        if store:
            store.heartbeat()
        tell(trial, "progress")

    for key, trial in tally.trials.items():
        known = store.records(keys=[key], statuses=SETTLED) if store else []
        result = processes.agree(LMResult.from_dict(known[0].result) if known and known[0].result else None)
        if result is not None:
            if store and known[0].run != trial.to_dict():  # another plan called it something else
                store.describe(trial)
            tally.results[key] = result
            tally.reused += 1
            tell(trial, "reused")
            continue
        if not processes.agree(bool(store and store.claim([trial], 1))):
            tell(trial, "waiting")
            continue
        since = datetime.now(UTC)
        tally.running[key] = None
        tell(trial, "started")
        corpus = corpus_of(trial.run.corpus, trial.run.tokenizer)
        try:
            result = train(trial, corpus, processes, checkpoints=checkpoints / key, on_progress=partial(progressed, trial))
        except BaseException:
            if store:
                store.release()
            raise
        if store:
            store.finish(trial, result.to_dict(), provenance(trial.device, since))
        if processes.is_first:
            _drop(checkpoints / key)
        tally.results[key] = result
        tally.flops += trial.run.flops * (result.steps - tally.steps_before.get(key, 0)) / trial.run.steps
        del tally.running[key]
        tell(trial, "finished")
    if store:
        store.release()
    return tally


def _drop(folder: Path) -> None:
    """Checkpoints are for trainings that have no result yet."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # not the last one
        folder.parent.rmdir()
