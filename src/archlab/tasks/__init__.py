"""The synthetic tasks: one file a task."""

from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register, registry, setting
from archlab.tasks.splits import sample

__all__ = ["IGNORE", "Arrays", "Task", "register", "registry", "sample", "setting"]


def __dir__() -> list[str]:
    return __all__
