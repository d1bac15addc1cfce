from tests.jobs.thread_executor import ThreadExecutor

from archlab.jobs.local import LocalExecutor
from archlab.testing.executors import ExecutorContract, ProcessExecutorContract


class TestLocalExecutor(ProcessExecutorContract):
    @classmethod
    def make(cls, work, num_workers):
        return LocalExecutor(work, num_workers)


class TestThreadExecutor(ExecutorContract):
    """The fake on which the tests of schedulers stand keeps the contract that they rely on."""

    @classmethod
    def make(cls, work, num_workers):
        return ThreadExecutor(work, num_workers)
