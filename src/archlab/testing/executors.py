"""The contract of an executor as checks that any executor can be put through."""

import math
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from archlab.errors import ArchlabError
from archlab.jobs.executor import Executor, JobError, Thresholds, Work, WorkerDiedError


@dataclass(frozen=True)
class Wish:
    """A toy job: what :func:`obey` shall do."""

    kind: str
    """A case of :func:`obey`."""
    value: float = 0.5
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Differs between wishes that differ."""
        return f"{self.kind} {self.value}"


@dataclass(frozen=True)
class Answer:
    """The toy result of a wish."""

    value: float
    started: float
    """Unix time."""
    ended: float
    status: str = "finished"


TERMINATED = -1.0
"""The value of a job that lingered until a SIGTERM."""

Toys = Executor[Wish, int, Answer]
"""An executor of wishes; their progress is a number of steps."""


class ExecutorContract(ABC):
    """Checks that an executor keeps its contract; inherit, say how to make one, run pytest.

    .. code-block:: python

        class TestMyExecutor(ExecutorContract):
            @classmethod
            def make(cls, work, num_workers):
                return MyExecutor(work, num_workers)

    The executor's workers must share this machine's files. Executors whose workers are processes keep
    :class:`ProcessExecutorContract`.
    """

    timeout: ClassVar[float] = 60.0
    """Seconds that a worker may take to start and run a job that takes no time."""

    @classmethod
    @abstractmethod
    def make(cls, work: Work[Wish, int, Answer], num_workers: int) -> Toys:
        """A fresh executor whose workers run ``work``, which can be pickled."""

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
        """An executor with two workers for the checks that leave it whole."""
        with cls.make(partial(obey_all, tmp_path_factory.mktemp("shared")), 2) as executor:
            yield executor

    def test_a_job_comes_back_with_its_result(self, shared: Toys) -> None:
        assert submit(shared, Wish("answer", 0.25)).result(self.timeout).value == 0.25, "the worker saw another job"

    def test_progress_arrives_in_order_and_before_the_result(self, shared: Toys) -> None:
        seen: list[int] = []
        submit(shared, Wish("report"), lambda _, step: seen.append(step)).result(self.timeout)
        assert seen == [1, 2, 3]

    def test_a_job_gets_its_pruning_thresholds(self, shared: Toys) -> None:
        assert submit(shared, Wish("threshold"), thresholds={7: 0.25}).result(self.timeout).value == 0.25
        futures = shared.submit([Wish("threshold")] * 2, ignore, [{7: 0.125}, {7: 0.75}])
        assert [future.result(self.timeout).value for future in futures] == [0.125, 0.75]

    def test_jobs_that_are_computed_together_end_one_by_one(self, shared: Toys) -> None:
        seen: list[tuple[float, int]] = []
        jobs = [Wish("report", 0.25), Wish("answer", 0.5), Wish("report", 0.75)]
        futures = shared.submit(jobs, lambda job, step: seen.append((job.value, step)))
        assert [future.result(self.timeout).value for future in futures] == [0.25, 0.5, 0.75]
        assert seen == [(0.25, 1), (0.25, 2), (0.25, 3), (0.75, 1), (0.75, 2), (0.75, 3)]

    def test_an_exception_fails_its_job_alone(self, shared: Toys) -> None:
        futures = [submit(shared, Wish(wish)) for wish in ("raise", "answer")]
        with pytest.raises(JobError) as caught:
            futures[0].result(self.timeout)
        assert str(caught.value) == "ValueError: two lines"
        assert "in obey" in caught.value.traceback
        assert futures[1].result(self.timeout).status == "finished"

    def test_an_exception_fails_those_of_its_group_that_had_not_ended(self, shared: Toys) -> None:
        futures = shared.submit([Wish("answer"), Wish("raise"), Wish("answer")], ignore)
        assert futures[0].result(self.timeout).status == "finished"
        for future in futures[1:]:
            with pytest.raises(JobError):
                future.result(self.timeout)

    def test_bad_input_fails_with_its_message_as_it_is(self, shared: Toys) -> None:
        with pytest.raises(JobError, match=r"^heads=3 does not divide dim=8: choose 2 or 4$"):
            submit(shared, Wish("refuse")).result(self.timeout)

    def test_a_callback_that_raises_spoils_no_other_job(self, shared: Toys) -> None:
        def raise_error(job: Wish, step: int) -> None:
            raise OSError("the terminal is gone")

        with pytest.raises(OSError, match="the terminal is gone"):
            submit(shared, Wish("report"), raise_error).result(self.timeout)
        values = [0.125, 0.25, 0.5]
        futures = [submit(shared, Wish("answer", value)) for value in values]
        assert [future.result(self.timeout).value for future in futures] == values

    def test_as_many_jobs_run_at_once_as_there_are_workers(self, shared: Toys) -> None:
        assert shared.num_workers == 2
        pair = [submit(shared, Wish("meet", value)) for value in (0.25, 0.5)]
        assert [future.result(self.timeout).status for future in pair] == ["finished", "finished"], "they never met"
        answers = [future.result(self.timeout) for future in [submit(shared, Wish("nap")) for _ in range(5)]]
        assert max(sum(other.started <= one.started < other.ended for other in answers) for one in answers) <= 2

    def test_one_worker_runs_jobs_in_the_order_of_submission(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            assert executor.num_workers == 1
            futures = [submit(executor, Wish("nap")) for _ in range(3)]
            starts = [future.result(self.timeout).started for future in futures]
        assert starts == sorted(starts)

    def test_a_stopped_job_is_cancelled_and_the_others_go_on(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            futures = [submit(executor, Wish(wish)) for wish in ("wait", "nap", "answer")]
            _wait_for(tmp_path / "waits", self.timeout)
            for future in futures[:2]:
                executor.stop(future)
                with pytest.raises(CancelledError):
                    future.result(10)
            (tmp_path / "go").touch()
            assert futures[2].result(self.timeout).status == "finished"
            executor.stop(futures[2])
            assert futures[2].result(self.timeout).status == "finished", "it had ended before"

    def test_one_of_several_that_are_computed_together_is_stopped(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            running, waiting = executor.submit([Wish("wait"), Wish("answer")], ignore)
            _wait_for(tmp_path / "waits", self.timeout)
            executor.stop(waiting)
            with pytest.raises(CancelledError):
                waiting.result(10)
            assert not running.done()
            (tmp_path / "go").touch()
            assert running.result(self.timeout).status == "finished"

    @pytest.mark.parametrize("grace", [0.0, 30.0])
    def test_after_a_shutdown_every_job_has_ended_and_none_has_started_since(self, tmp_path: Path, grace: float) -> None:
        executor = self.make(partial(obey_all, tmp_path), 1)
        running, *waiting = [submit(executor, Wish(wish)) for wish in ("linger", "nap", "answer")]
        _wait_for(tmp_path / "lingers", self.timeout)
        executor.shutdown(grace)
        executor.shutdown()
        assert running.done()
        for future in waiting:
            with pytest.raises(CancelledError):
                future.result(10)


class ProcessExecutorContract(ExecutorContract):
    """Checks of an executor whose workers are processes: one that dies is replaced, one that hangs is killed."""

    def test_a_job_whose_worker_dies_is_tried_again(self, shared: Toys) -> None:
        futures = [submit(shared, Wish(wish)) for wish in ("die once", "answer")]
        assert [future.result(self.timeout).status for future in futures] == ["finished", "finished"]

    def test_a_job_that_kills_every_worker_fails_alone_and_says_how(self, shared: Toys) -> None:
        futures = [submit(shared, Wish(wish)) for wish in ("die", "answer")]
        with pytest.raises(WorkerDiedError, match="SIGKILL") as caught:
            futures[0].result(self.timeout)
        assert "\n" not in str(caught.value)
        assert futures[1].result(self.timeout).status == "finished"

    def test_of_jobs_together_only_those_that_had_not_ended_are_tried_again(self, shared: Toys) -> None:
        futures = shared.submit([Wish("nap"), Wish("die in company"), Wish("answer")], ignore)
        first = futures[0].result(self.timeout)
        assert futures[2].result(self.timeout).status == futures[1].result(self.timeout).status == "finished"
        assert futures[0].result(0) is first

    def test_a_stopped_job_frees_its_worker_at_once(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            futures = [submit(executor, Wish(wish)) for wish in ("hang", "answer")]
            _wait_for(tmp_path / "hangs", self.timeout)
            executor.stop(futures[0])
            assert futures[1].result(self.timeout).status == "finished"

    def test_jobs_together_free_their_worker_once_nobody_waits_for_any(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            hanging, waiting = executor.submit([Wish("hang"), Wish("answer")], ignore)
            _wait_for(tmp_path / "hangs", self.timeout)
            executor.stop(waiting)
            assert not hanging.done()
            after = submit(executor, Wish("answer"))
            executor.stop(hanging)
            assert after.result(self.timeout).status == "finished"

    def test_a_stopped_job_leaves_those_that_are_computed_together_with_it(self, tmp_path: Path) -> None:
        with self.make(partial(obey_all, tmp_path), 1) as executor:
            stopped, other = executor.submit([Wish("run until stopped"), Wish("answer", 0.25)], ignore)
            _wait_for(tmp_path / "runs", self.timeout)
            executor.stop(stopped)
            assert other.result(self.timeout).value == 0.25

    def test_shutdown_ends_running_and_waiting_jobs_at_once(self, tmp_path: Path) -> None:
        executor = self.make(partial(obey_all, tmp_path), 1)
        futures = [submit(executor, Wish(wish)) for wish in ("hang", "answer")]
        _wait_for(tmp_path / "hangs", self.timeout)
        started = time.monotonic()
        executor.shutdown()
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(10)
        assert time.monotonic() - started < 10

    def test_a_grace_lets_a_job_end_by_itself_after_a_sigterm(self, tmp_path: Path) -> None:
        executor = self.make(partial(obey_all, tmp_path), 1)
        future = submit(executor, Wish("linger"))
        _wait_for(tmp_path / "lingers", self.timeout)
        executor.shutdown(grace=self.timeout)
        assert future.result(0).value == TERMINATED

    def test_a_grace_is_waited_for_no_longer_than_it_lasts(self, tmp_path: Path) -> None:
        executor = self.make(partial(obey_all, tmp_path), 1)
        future = submit(executor, Wish("hang"))
        _wait_for(tmp_path / "hangs", self.timeout)
        started = time.monotonic()
        executor.shutdown(grace=0.5)
        assert time.monotonic() - started < 10
        assert future.cancelled()


def _wait_for(path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"no worker has made {path.name}"
        time.sleep(0.01)


def ignore(job: Wish, step: int) -> None:
    """Listen to progress without using it."""


def submit(
    executor: Toys, job: Wish, on_progress: Callable[[Wish, int], None] = ignore, thresholds: Thresholds | None = None
) -> Future[Answer]:
    """Submit a job by itself."""
    (future,) = executor.submit([job], on_progress, [thresholds or {}])
    return future


def obey_all(
    folder: Path, jobs: Sequence[Wish], on_progress: Callable[[int, int], None], thresholds: Sequence[Thresholds]
) -> Iterator[tuple[int, Answer]]:
    """Do what the jobs wish, one after the other; ``folder`` remembers across workers."""
    for index, job in enumerate(jobs):
        started = time.time()
        value = obey(folder, job, partial(on_progress, index), thresholds[index])
        yield index, Answer(value, started, time.time())


def obey(folder: Path, job: Wish, on_progress: Callable[[int], None], thresholds: Thresholds) -> float:
    """Do what a job wishes; returns the value of its answer."""
    match job.kind:
        case "report":
            for step in (1, 2, 3):
                on_progress(step)
        case "raise":
            raise ValueError("two\nlines")
        case "refuse":
            raise ArchlabError("heads=3 does not divide dim=8: choose 2 or 4")
        case "threshold":
            return thresholds[7]
        case "nap":
            time.sleep(0.2)
        case "meet":
            (folder / f"meets-{job.value}").touch()
            while len(list(folder.glob("meets-*"))) < 2:
                time.sleep(0.01)
        case "wait":
            (folder / "waits").touch()
            _wait_for(folder / "go", 3600)
        case "linger":
            return _linger(folder, job.value)
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (folder / "hangs").touch()
            time.sleep(3600)
        case "run until stopped":
            (folder / "runs").touch()
            while thresholds.get(7, math.inf) > -math.inf:
                on_progress(1)
                time.sleep(0.1)
        case "die" | "die once" | "die in company":
            if job.kind == "die" or not (folder / job.kind).exists():
                (folder / job.kind).touch()
                os.kill(os.getpid(), signal.SIGKILL)
    return job.value


def _linger(folder: Path, value: float) -> float:
    """Take two seconds, or less if a SIGTERM comes; only a process's main thread hears one."""
    heard: list[int] = []
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    (folder / "lingers").touch()
    deadline = time.monotonic() + 2
    while not heard and time.monotonic() < deadline:
        time.sleep(0.01)
    return TERMINATED if heard else value
