"""The synthetic tasks: one file a task."""

from archlab.tasks.base import IGNORE, Arrays, Split, Task, register, registry, sample, setting

__all__ = ["IGNORE", "Arrays", "Split", "Task", "register", "registry", "sample", "setting"]
