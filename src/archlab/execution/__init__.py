"""Where trials run: worker processes on this machine, or anything else that keeps the executor contract."""

from archlab.execution.base import Executor, TrialError, WorkerDiedError
from archlab.execution.local import LocalExecutor, available_cores

__all__ = ["Executor", "LocalExecutor", "TrialError", "WorkerDiedError", "available_cores"]
