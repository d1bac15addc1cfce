from itertools import pairwise

import torch
from tests.jobs.thread_executor import ThreadExecutor
from typing_extensions import override

from archlab.jobs.local import LocalExecutor
from archlab.scaling.process_group import ProcessGroupExecutor
from archlab.scaling.processes import Processes
from archlab.testing.executors import ExecutorContract, ProcessExecutorContract, Wish, submit


class TestLocalExecutor(ProcessExecutorContract):
    @classmethod
    def make(cls, work, num_workers):
        return LocalExecutor(work, num_workers)


class TestThreadExecutor(ExecutorContract):
    """The fake on which the tests of schedulers stand keeps the contract that they rely on."""

    @classmethod
    def make(cls, work, num_workers):
        return ThreadExecutor(work, num_workers)


class TestProcessGroupExecutor(ExecutorContract):
    """All processes together are one worker, whatever their number; here there is one."""

    @classmethod
    def make(cls, work, num_workers):
        return ProcessGroupExecutor(work, Processes(torch.device("cpu")))

    @override
    def test_as_many_jobs_run_at_once_as_there_are_workers(self, shared):
        assert shared.num_workers == 1
        answers = [future.result(self.timeout) for future in [submit(shared, Wish("nap")) for _ in range(3)]]
        assert all(one.ended <= other.started for one, other in pairwise(answers))
