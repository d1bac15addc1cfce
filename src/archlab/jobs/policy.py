"""The policy of a run: which jobs are needed, in which order, which are computed together, which are cut off."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from archlab.jobs.events import Job
from archlab.jobs.executor import Thresholds
from archlab.store.record import SETTLED, Status

J = TypeVar("J", bound=Job)
R = TypeVar("R")


class Policy(Generic[J, R]):
    """Decides which jobs are needed, in which order, and which are computed together. This one: all, as given, one by one."""

    settled: tuple[Status, ...] = SETTLED
    """Statuses of jobs that need no more computing."""
    whole_results: bool = False
    """Whether :meth:`observe` needs whole results, with their curves."""
    group_size: int = 1
    """Largest number of jobs that a worker computes together."""

    def observe(self, job: J, result: R) -> Sequence[J]:
        """Take in a result; returns the jobs without a result that are no longer needed. Any order of results will do."""
        return ()

    def failed(self, job: J) -> Sequence[J]:
        """Take in that a job gave no result; returns the same as :meth:`observe`."""
        return ()

    def order(self, waiting: Mapping[str, J], running: Collection[J]) -> list[J]:
        """The jobs that may start now, the next one first."""
        return list(waiting.values())

    def thresholds(self, job: J) -> Thresholds:
        """The pruning thresholds of a job that starts now."""
        return {}

    def group(self, job: J) -> Hashable:
        """Equal for jobs that can be computed together."""
        return job.key
