from archlab.jobs.local import LocalExecutor
from archlab.testing.executors import ExecutorContract


class TestLocalExecutor(ExecutorContract):
    @classmethod
    def make(cls, train, num_workers):
        return LocalExecutor(num_workers, train=train)
