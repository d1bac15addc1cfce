"""The synthetic tasks: one file a task."""

from archlab.tasks.contract import IGNORE, Arrays, Split, Task
from archlab.tasks.registry import find_task, register, registry, setting, task_order
from archlab.tasks.splits import sample

__all__ = ["IGNORE", "Arrays", "Split", "Task", "find_task", "register", "registry", "sample", "setting", "task_order"]
