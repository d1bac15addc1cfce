"""The contract of an executor as checks that any executor can be put through."""

import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
import pytest

from archlab.errors import ArchlabError
from archlab.jobs.executor import Executor, TrialError, WorkerDiedError
from archlab.mad.trial import Hurdles, Metrics, Progress, Trial, TrialResult

if TYPE_CHECKING:
    from archlab.jobs.executor import OnProgress, Train


class ExecutorContract(ABC):
    """Checks that an executor keeps its contract; inherit, say how to make one, run pytest.

    .. code-block:: python

        class TestMyExecutor(ExecutorContract):
            @classmethod
            def make(cls, train, num_workers):
                return MyExecutor(num_workers, train=train)

    The executor's workers must share this machine's files.
    """

    timeout: ClassVar[float] = 60.0
    """Seconds that a worker may take to start and run a trial that takes no time."""

    @classmethod
    @abstractmethod
    def make(cls, train: "Train", num_workers: int) -> Executor:
        """A fresh executor whose workers run ``train``, which can be pickled."""

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
        """An executor with two workers for the checks that leave it whole."""
        with cls.make(partial(obey_all, tmp_path_factory.mktemp("shared")), 2) as executor:
            yield executor

    def test_a_trial_comes_back_with_its_result(self, shared: Executor) -> None:
        result = submit(shared, ask("answer", accuracy=0.25)).result(self.timeout)
        assert result.selected.accuracy == 0.25, "the worker saw another trial"
        assert result.numerators.dtype == np.float32
        assert result.numerators.tolist() == [1.0, 2.0]
        assert math.isnan(result.test_last.loss)

    def test_progress_arrives_in_order_and_before_the_result(self, shared: Executor) -> None:
        seen: list[int] = []
        future = submit(shared, ask("report"), lambda _, progress: seen.append(progress.step))
        future.result(self.timeout)
        assert seen == [1, 2, 3]

    def test_a_trial_is_told_its_hurdles(self, shared: Executor) -> None:
        assert submit(shared, ask("jump"), hurdles={7: 0.5}).result(self.timeout).numerators[0] == 0.5

    def test_a_stopped_trial_is_cancelled_and_the_others_go_on(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            futures = [submit(executor, ask(wish)) for wish in ("hang", "nap", "answer")]
            _wait_for(tmp_path / "hangs", self.timeout)
            for future in futures[:2]:
                executor.stop(future)
                with pytest.raises(CancelledError):
                    future.result(10)
            assert futures[2].result(self.timeout).status == "finished"
            executor.stop(futures[2])
            assert futures[2].result(self.timeout).status == "finished", "it had ended before"

    def test_trials_that_are_trained_together_end_one_by_one(self, shared: Executor) -> None:
        seen: list[tuple[float, int]] = []
        trials = [ask("report", 0.25), ask("answer", 0.5), ask("report", 0.75)]
        futures = shared.submit(trials, lambda trial, p: seen.append((cast(Wish, trial).accuracy, p.step)))
        assert [future.result(self.timeout).selected.accuracy for future in futures] == [0.25, 0.5, 0.75]
        assert seen == [(0.25, 1), (0.25, 2), (0.25, 3), (0.75, 1), (0.75, 2), (0.75, 3)]

    def test_of_trials_together_only_those_that_had_not_ended_are_tried_again(self, shared: Executor) -> None:
        futures = shared.submit([ask("nap"), ask("die in company"), ask("answer")], ignore)
        first = futures[0].result(self.timeout)
        assert futures[2].result(self.timeout).status == futures[1].result(self.timeout).status == "finished"
        assert futures[0].result(0) is first

    def test_an_exception_fails_those_that_had_not_ended(self, shared: Executor) -> None:
        futures = shared.submit([ask("answer"), ask("raise"), ask("answer")], ignore)
        assert futures[0].result(self.timeout).status == "finished"
        for future in futures[1:]:
            with pytest.raises(TrialError):
                future.result(self.timeout)

    def test_of_trials_together_one_is_stopped(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            hanging, waiting = executor.submit([ask("hang"), ask("answer")], ignore)
            _wait_for(tmp_path / "hangs", self.timeout)
            executor.stop(waiting)
            with pytest.raises(CancelledError):
                waiting.result(10)
            assert not hanging.done()
            after = submit(executor, ask("answer"))
            executor.stop(hanging)
            assert after.result(self.timeout).status == "finished", "the worker is free once nobody waits for its trials"

    def test_an_exception_fails_its_trial_alone(self, shared: Executor) -> None:
        futures = [submit(shared, ask(wish)) for wish in ("raise", "answer")]
        with pytest.raises(TrialError) as caught:
            futures[0].result(self.timeout)
        assert str(caught.value) == "ValueError: two lines"
        assert "in obey" in caught.value.traceback
        assert futures[1].result(self.timeout).status == "finished"

    def test_bad_input_fails_with_its_message_as_it_is(self, shared: Executor) -> None:
        with pytest.raises(TrialError, match=r"^heads=3 does not divide dim=8: choose 2 or 4$"):
            submit(shared, ask("refuse")).result(self.timeout)

    def test_a_callback_that_raises_spoils_no_other_trial(self, shared: Executor) -> None:
        def raise_error(trial: Trial, progress: Progress) -> None:
            raise OSError("the terminal is gone")

        with pytest.raises(OSError, match="the terminal is gone"):
            submit(shared, ask("report"), raise_error).result(self.timeout)
        accuracies = [0.125, 0.25, 0.5]
        futures = [submit(shared, ask("answer", accuracy)) for accuracy in accuracies]
        assert [future.result(self.timeout).selected.accuracy for future in futures] == accuracies

    def test_as_many_trials_run_at_once_as_there_are_workers(self, shared: Executor) -> None:
        assert shared.num_workers == 2
        pair = [submit(shared, ask("meet", accuracy)) for accuracy in (0.25, 0.5)]
        assert [future.result(self.timeout).status for future in pair] == ["finished", "finished"], "they never met"
        futures = [submit(shared, ask("nap")) for _ in range(5)]
        spans = [future.result(self.timeout).numerators.tolist() for future in futures]
        at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
        assert max(at_once) <= 2

    def test_one_worker_runs_trials_in_the_order_of_submission(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            assert executor.num_workers == 1
            futures = [submit(executor, ask("nap")) for _ in range(3)]
            starts = [future.result(self.timeout).numerators[0] for future in futures]
        assert starts == sorted(starts)

    def test_a_trial_whose_worker_dies_is_tried_again(self, shared: Executor) -> None:
        futures = [submit(shared, ask(wish)) for wish in ("die once", "answer")]
        assert [future.result(self.timeout).status for future in futures] == ["finished", "finished"]

    def test_a_trial_that_kills_every_worker_fails_alone_and_says_how(self, shared: Executor) -> None:
        futures = [submit(shared, ask(wish)) for wish in ("die", "answer")]
        with pytest.raises(WorkerDiedError, match="SIGKILL") as caught:
            futures[0].result(self.timeout)
        assert "\n" not in str(caught.value)
        assert futures[1].result(self.timeout).status == "finished"

    def test_shutdown_ends_running_and_waiting_trials_at_once(self, tmp_path: Path) -> None:
        executor = self.make(partial(obey_all, tmp_path), 1)
        futures = [submit(executor, ask(wish)) for wish in ("hang", "answer")]
        _wait_for(tmp_path / "hangs", self.timeout)
        started = time.monotonic()
        executor.shutdown()
        executor.shutdown()
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(10)
        assert time.monotonic() - started < 10


def _wait_for(path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


_METRICS = Metrics(0.5, 0.5, 0.7)


@dataclass(frozen=True)
class Wish:
    """Stands in for a trial: what :func:`obey` shall do. A real one would have every worker import torch."""

    kind: Literal["answer", "jump", "report", "raise", "refuse", "nap", "meet", "die", "die once", "die in company", "hang"]
    accuracy: float = 0.5
    device: str = "cpu"

    @property
    def key(self) -> str:
        """As a trial has one."""
        return f"{self.kind} {self.accuracy}"


def ask(kind: str, accuracy: float = 0.5) -> Trial:
    """A wish in the place of a trial."""
    return cast(Trial, Wish(kind, accuracy))  # type: ignore[arg-type]


def ignore(trial: Trial, progress: Progress) -> None:
    """Progress that nobody looks at."""


def submit(
    executor: Executor, trial: Trial, on_progress: "OnProgress" = ignore, hurdles: Hurdles | None = None
) -> "Future[TrialResult]":
    """One trial by itself."""
    (future,) = executor.submit([trial], on_progress, [hurdles or {}])
    return future


def obey_all(
    folder: Path, trials: Sequence[Trial], on_progress: Callable[[int, Progress], None], hurdles: Sequence[Hurdles]
) -> Iterator[tuple[int, TrialResult]]:
    """Do what the trials wish, one after the other."""
    for place, trial in enumerate(trials):
        yield place, obey(folder, trial, partial(on_progress, place), hurdles[place])


def obey(folder: Path, trial: Trial, on_progress: Callable[[Progress], None], hurdles: Hurdles) -> TrialResult:
    """Do what the trial wishes instead of training it; ``folder`` remembers across workers."""
    wish = cast(Wish, trial)
    numerators = [1.0, 2.0]
    if wish.kind == "report":
        for step in (1, 2, 3):
            on_progress(Progress(step, 3, 1.0, None))
    elif wish.kind == "raise":
        raise ValueError("two\nlines")
    elif wish.kind == "refuse":
        raise ArchlabError("heads=3 does not divide dim=8: choose 2 or 4")
    elif wish.kind == "jump":
        numerators = [hurdles[7], 0.0]
    elif wish.kind == "nap":
        epoch = folder / "epoch"  # seconds since then are few: float32 tells milliseconds apart
        with suppress(FileExistsError):
            epoch.touch(exist_ok=False)
        start = time.time() - epoch.stat().st_mtime
        time.sleep(0.2)
        numerators = [start, start + 0.2]
    elif wish.kind == "meet":
        (folder / f"meets-{wish.accuracy}").touch()
        while len(list(folder.glob("meets-*"))) < 2:
            time.sleep(0.01)
    elif wish.kind.startswith("die") and (wish.kind == "die" or not (folder / wish.kind).exists()):
        (folder / wish.kind).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif wish.kind == "hang":
        (folder / "hangs").touch()
        time.sleep(3600)
    return TrialResult(
        status="finished",
        steps=1,
        solved_step=None,
        selected_step=1,
        selected=Metrics(wish.accuracy, 0.5, 0.7),
        test=_METRICS,
        test_last=Metrics(0.5, 0.5, math.nan),
        curve=(),
        numerators=np.asarray(numerators, dtype=np.float32),
        denominators=np.asarray([2.0, 2.0], dtype=np.float32),
        examples_per_second=1.0,
        wall_seconds=0.0,
        cpu_seconds=0.0,
    )
