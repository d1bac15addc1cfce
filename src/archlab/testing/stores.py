"""The contract of a store as checks that any store can be put through."""

import multiprocessing
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any, ClassVar

import pytest
from sqlalchemy import update

from archlab.store.ledger import Described, Ledger, Record
from archlab.store.owner import LEASE_SECONDS
from archlab.store.schema import owners

AnyStore = Ledger[Any, Any]
Location = str | Path


class StoreContract(ABC):
    """Checks that a store computes every job once and loses no result; inherit, say how to make one, run pytest.

    .. code-block:: python

        class TestMyStore(StoreContract):
            @classmethod
            def make(cls, location):
                return MyStore(location)

            @classmethod
            def job(cls, number):
                return MyJob(seed=number)

            @classmethod
            def result(cls, number):
                return MyResult(status="finished", loss=float(number))

    Processes of their own open the store too, so the class must be one that they can import.
    """

    timeout: ClassVar[float] = 120.0
    """Seconds that a process may take to start and open the store."""

    @classmethod
    @abstractmethod
    def make(cls, location: Location) -> AnyStore:
        """The store at this location, created if there is none; every call opens it anew."""

    @classmethod
    @abstractmethod
    def job(cls, number: int) -> Described:
        """The job with this number; jobs with different numbers have different keys."""

    @classmethod
    @abstractmethod
    def result(cls, number: int) -> Any:
        """A result with the status ``"finished"`` and a method ``to_dict``; results with different numbers differ."""

    @pytest.fixture
    def location(self, tmp_path: Path) -> Location:
        """A place without a store: a path, or the URL of an empty database."""
        return tmp_path / "store.db"

    @pytest.fixture
    def store(self, location: Location) -> Iterator[AnyStore]:
        """A new store."""
        with self.make(location) as opened:
            yield opened

    @pytest.fixture
    def other(self, store: AnyStore, location: Location) -> Iterator[AnyStore]:
        """The same store, opened by another owner."""
        with self.make(location) as opened:
            yield opened

    @classmethod
    def jobs(cls, count: int) -> list[Described]:
        """The first jobs."""
        return [cls.job(number) for number in range(count)]

    def test_a_new_store_holds_nothing(self, store: AnyStore) -> None:
        assert store.records() == []
        assert store.records(keys=[self.job(0).key]) == []
        assert store.runs() == []

    def test_claims_come_in_the_given_order_up_to_the_limit(self, store: AnyStore) -> None:
        backwards = self.jobs(5)[::-1]
        assert store.claim(backwards, 2) == backwards[:2]
        assert store.claim(backwards, 0) == []
        assert store.claim(backwards, 2) == backwards[2:4]
        assert store.claim(backwards, 9) == backwards[4:]

    def test_a_job_is_claimed_once(self, store: AnyStore, other: AnyStore) -> None:
        jobs = self.jobs(3)
        assert store.claim(jobs, 2) == jobs[:2]
        assert store.claim(jobs[:2], 9) == []
        assert other.claim(jobs, 9) == jobs[2:]
        (record, *_) = other.records()
        assert (record.key, record.job, record.status) == (jobs[0].key, jobs[0], "running")
        assert (record.result, record.error, record.provenance) == (None, None, {})

    def test_a_job_with_a_result_is_never_claimed_again(self, store: AnyStore, other: AnyStore) -> None:
        (job,) = store.claim(self.jobs(1), 1)
        store.finish(job, self.result(1), {})
        assert store.claim([job], 1) == []
        assert other.claim([job], 1) == []

    def test_a_result_survives_reopening(self, store: AnyStore, location: Location) -> None:
        (job,) = store.claim(self.jobs(1), 1)
        store.finish(job, self.result(1), {"host": "lab", "wall_seconds": 1.5})
        store.close()
        with self.make(location) as again:
            (record,) = again.records()
        assert (record.key, record.job, record.status, record.error) == (job.key, job, "finished", None)
        assert {"host": "lab", "wall_seconds": 1.5}.items() <= record.provenance.items()
        assert _is(record, self.result(1))

    def test_the_first_result_stays(self, store: AnyStore, other: AnyStore) -> None:
        (job,) = store.claim(self.jobs(1), 1)
        store.finish(job, self.result(1), {"host": "first"})
        other.finish(job, self.result(2), {"host": "second"})
        store.finish(job, self.result(3), {"host": "third"})
        (record,) = store.records()
        assert record.provenance["host"] == "first"
        assert _is(record, self.result(1))

    def test_a_result_is_kept_without_a_claim(self, store: AnyStore) -> None:
        store.finish(self.job(0), self.result(1), {})
        assert _is(store.records()[0], self.result(1))

    def test_a_failed_job_says_why_and_can_be_claimed_again(self, store: AnyStore, other: AnyStore) -> None:
        (job,) = store.claim(self.jobs(1), 1)
        other.fail(job, "not mine", {})
        assert store.records()[0].status == "running", "only its owner says that a job has failed"
        store.fail(job, "ValueError: \N{SNOWMAN}, \0 and \ud800\nthe traceback", {"host": "lab"})
        (record,) = store.records()
        assert (record.status, record.result, record.provenance) == ("failed", None, {"host": "lab"})
        assert record.error == "ValueError: \N{SNOWMAN}, ? and ?\nthe traceback"
        store.fail(job, "it has no claim any more", {})
        assert store.records() == [record]
        assert other.claim([job], 1) == [job]
        assert store.claim([job], 1) == []
        other.finish(job, self.result(1), {})
        (record,) = store.records()
        assert (record.status, record.error) == ("finished", None)
        other.fail(job, "too late", {})
        assert store.records()[0].status == "finished"

    def test_a_claim_that_is_given_back_leaves_what_was_there(self, store: AnyStore, other: AnyStore) -> None:
        fresh, failed, held = store.claim(self.jobs(3), 3)
        store.fail(failed, "it was late", {})
        assert store.claim([failed], 1) == [failed]
        other.give_back(held)
        store.give_back(fresh)
        store.give_back(failed)
        assert [(record.key, record.status, record.error) for record in store.records()] == [
            (failed.key, "failed", "it was late"),
            (held.key, "running", None),
        ]
        assert other.claim([fresh, failed, held], 9) == [fresh, failed]

    def test_release_gives_back_every_claim_of_its_owner_alone(self, store: AnyStore, other: AnyStore) -> None:
        finished, failed, _, theirs = jobs = self.jobs(4)
        store.claim(jobs, 3)
        other.claim(jobs, 9)
        store.finish(finished, self.result(1), {})
        store.fail(failed, "it was late", {})
        store.claim([failed], 1)
        store.release()
        assert [(record.key, record.status) for record in store.records()] == [
            (finished.key, "finished"),
            (failed.key, "failed"),
            (theirs.key, "running"),
        ]

    def test_a_dead_owners_claims_can_be_taken_at_once(self, store: AnyStore, location: Location) -> None:
        jobs = self.jobs(2)
        self.abandon(jobs[:1], location)
        assert store.records()[0].status == "running"
        assert store.claim(jobs, 9) == jobs

    def test_a_dead_owners_claim_is_taken_by_one_of_two(
        self, store: AnyStore, other: AnyStore, location: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs = self.jobs(2)
        self.abandon(jobs[:1], location)
        other.claim(jobs[1:], 1)
        other.fail(jobs[1], "it was late", {})
        beat, taken = store.heartbeat, []

        def overtaken() -> None:  # between the look and the first claim
            monkeypatch.setattr(store, "heartbeat", beat)
            taken.extend(other.claim(jobs, 9))
            beat()

        monkeypatch.setattr(store, "heartbeat", overtaken)
        assert store.claim(jobs, 9) == []
        assert taken == jobs

    def test_an_owner_elsewhere_is_alive_as_long_as_it_is_heard_of(
        self, store: AnyStore, other: AnyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (job,) = self.jobs(1)
        other.owner = replace(other.owner, machine="elsewhere")
        other.claim([job], 1)
        monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock of a machine does not count
        for _ in range(2):
            _let_pass(other, 0.9 * LEASE_SECONDS)
            assert store.claim([job], 1) == []
            other.heartbeat()
        _let_pass(other, 1.1 * LEASE_SECONDS)
        assert store.claim([job], 1) == [job]
        other.finish(job, self.result(1), {})  # it was only slow: the first result counts, whoever computed it
        store.finish(job, self.result(2), {})
        assert _is(store.records()[0], self.result(1))

    def test_records_come_oldest_first_or_in_the_order_of_the_keys(self, store: AnyStore) -> None:
        jobs = self.jobs(700)  # more than the keys of one statement
        for job in (jobs[2], jobs[0], jobs[600]):
            store.finish(job, self.result(1), {})
        store.claim(jobs, 1)
        assert [record.key for record in store.records()] == [jobs[i].key for i in (2, 0, 600, 1)]
        keys = [job.key for job in reversed(jobs)]
        assert [record.key for record in store.records([*keys, keys[-1], "unknown"])] == [jobs[i].key for i in (600, 2, 1, 0)]
        assert [record.key for record in store.records(keys, ["finished"])] == [jobs[i].key for i in (600, 2, 0)]
        assert [record.key for record in store.records(statuses=["running", "failed"])] == [jobs[1].key]
        assert [(record.key, record.job) for record in store.outcomes(keys)] == [(jobs[i].key, jobs[i]) for i in (600, 2, 1, 0)]

    def test_what_is_deleted_can_be_computed_again_and_what_is_computed_stays(self, store: AnyStore, other: AnyStore) -> None:
        finished, failed, held, kept = jobs = self.jobs(4)
        store.claim(jobs, 9)
        for job in (finished, kept):
            store.finish(job, self.result(1), {})
        store.fail(failed, "it was late", {})
        assert other.delete([job.key for job in (finished, failed, held)] + ["unknown"]) == 2
        assert [record.key for record in store.records()] == [held.key, kept.key]
        assert other.claim(jobs, 9) == [finished, failed]

    def test_a_description_is_replaced_for_its_job_alone(self, store: AnyStore) -> None:
        first, second = self.jobs(2)
        store.finish(first, self.result(1), {})
        store.claim([second], 1)
        store.describe(first)
        assert [record.job for record in store.records()] == [first, second]
        assert _is(store.records()[0], self.result(1))

    def test_runs_are_numbered_and_remembered(self, store: AnyStore, location: Location) -> None:
        before = time.time()
        numbers = [store.remember_run({"what": "one"}), store.remember_run({"what": "two"}, label="wide")]
        with self.make(location) as again:
            runs = again.runs()
        assert [(run.number, run.label, run.plan["what"]) for run in runs] == [
            (numbers[0], "", "one"),
            (numbers[1], "wide", "two"),
        ]
        assert numbers[0] < numbers[1]
        assert all(run.started is not None and before <= run.started <= time.time() for run in runs)

    def test_processes_that_claim_at_once_never_share_a_job(self, store: AnyStore, location: Location, tmp_path: Path) -> None:
        jobs = self.jobs(40)
        self.abandon(jobs[::2], location)
        context = multiprocessing.get_context("spawn")
        together = context.Barrier(3)
        arguments = [(self.make, location, jobs, together, tmp_path / f"claims-{n}") for n in range(2)]
        processes = [context.Process(target=_claim_all, args=each) for each in arguments]
        for process in processes:
            process.start()
        try:
            together.wait(self.timeout)  # all have opened the store
            together.wait(self.timeout)  # nothing is left to claim
            assert store.claim(jobs, 99) == [], "their owners are alive"
        finally:
            for process in processes:
                process.kill()
                process.join()
        claims = [(tmp_path / f"claims-{n}").read_text().split() for n in range(2)]
        assert sorted(claims[0] + claims[1]) == sorted(job.key for job in jobs)
        assert store.claim(jobs, 99) == jobs, "their owners have been killed"

    def abandon(self, jobs: Sequence[Described], location: Location) -> None:
        """Let an owner claim these jobs whose process is dead: its id belongs to a later process, this one."""
        with self.make(location) as dead:
            dead.owner = replace(dead.owner, process_started="long ago")
            assert dead.claim(jobs, len(jobs)) == jobs


def _let_pass(store: AnyStore, seconds: float) -> None:
    """Make the latest heartbeats that much older."""
    with store._write() as connection:
        connection.execute(update(owners).values(heartbeat=owners.c.heartbeat - seconds))


def _is(record: Record[Any, Any], result: Any) -> bool:
    """Whether a record holds this result."""
    return record.status == "finished" and record.result is not None and record.result.to_dict() == result.to_dict()


def _claim_all(make: Callable[[Location], AnyStore], location: Location, jobs: Sequence[Any], together: Any, note: Path) -> None:
    """In a process of its own: claim what there is, write down the keys, and stay alive."""
    with make(location) as store:
        together.wait()
        taken: list[str] = []
        while claimed := store.claim(jobs, 2):
            taken += [job.key for job in claimed]
        note.write_text("\n".join(taken))
        try:
            together.wait()
            time.sleep(3600)
        except BrokenBarrierError:
            pass
