"""Jobs that sleep, and a store of them: what measures claims and faults without training anything or importing torch."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from archlab.jobs.executor import Thresholds
from archlab.jobs.policy import Policy
from archlab.jobs.pull import Order
from archlab.store.ledger import Ledger
from archlab.store.opened import AnyRow
from archlab.store.schema import language_models
from archlab.store.submissions import Submission, Submissions


@dataclass(frozen=True)
class Toy:
    """A job that sleeps."""

    number: int
    seconds: float
    device: str = "cpu"
    origin: str = ""

    @property
    def key(self) -> str:
        return f"{self.number:032x}"

    @property
    def flops(self) -> float:
        return self.seconds

    @property
    def answer(self) -> str:
        """The value of its result."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ToyResult:
    value: str
    status: str = "finished"


class ToyStore(Ledger[Toy, ToyResult]):
    table = language_models
    description: ClassVar[str] = "run"
    noun: ClassVar[str] = "toy"
    filled_by: ClassVar[str] = "python -m benchmarks.faults"
    kind: ClassVar[str] = "toys"

    @override
    def read_job(self, description: dict[str, Any], known: dict[Any, Any]) -> Toy:
        return Toy(**description)

    @override
    def result_columns(self, result: ToyResult) -> dict[str, Any]:
        return {"status": result.status, "result": {"value": result.value}}

    @override
    def read_result(self, row: AnyRow) -> ToyResult:
        return ToyResult(row.result["value"])


def sleep_all(
    log: Path, jobs: Sequence[Toy], on_progress: Callable[[int, int], None], thresholds: Sequence[Thresholds]
) -> Iterator[tuple[int, ToyResult]]:
    """Sleep for each job; the log gets its number, the process, and when it began (Unix time)."""
    for index, toy in enumerate(jobs):
        with log.open("a") as file:
            file.write(f"{toy.number} {os.getpid()} {time.time()}\n")
        on_progress(index, 1)
        time.sleep(toy.seconds)
        yield index, ToyResult(toy.answer)


def read(one: Submission, submissions: Submissions) -> Order[Toy, ToyResult]:
    """The toys of a submission."""
    return Order([Toy(**toy) for toy in one.what["toys"]], "", ToyStore(submissions), Policy())


def went_wrong(store: str, log: Path, toys: Sequence[Toy]) -> Counter[str]:
    """The toys that are lost, doubled and wrong, from their store and the log of :func:`sleep_all`."""
    with ToyStore(store) as opened:
        records = opened.records()
    begun: dict[int, list[float]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        number, _, at = line.split()
        begun.setdefault(int(number), []).append(float(at))
    results = {record.job.number: record for record in records if record.result is not None}
    more = len(records) - len({record.key for record in records})
    found = Counter({"lost": len(toys) - len(results), "doubled": 0, "wrong": more})
    for number, record in results.items():
        found["wrong"] += record.result.value != Toy(number, 0).answer
        stored = datetime.fromisoformat(record.finished or "").timestamp()
        found["doubled"] += any(at > stored + 0.001 for at in begun[number])
    return found
