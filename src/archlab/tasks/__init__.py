"""The synthetic tasks: one file a task."""

from archlab.tasks.contract import IGNORE, Arrays, Split, Task
from archlab.tasks.registry import register, registry, setting
from archlab.tasks.splits import sample

__all__ = ["IGNORE", "Arrays", "Split", "Task", "register", "registry", "sample", "setting"]
