"""The registry of tasks: every task by its name, those of installed packages and of imported files too.

Every module of :mod:`archlab.tasks` is imported on the first look-up, so a new file needs no edit elsewhere, and so are
those that installed packages name as entry points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from typing_extensions import dataclass_transform

from archlab.errors import ArchlabError, unknown
from archlab.fields import check_value
from archlab.sources import import_installed, import_modules
from archlab.tasks.contract import Task

_REGISTRY: dict[str, type[Task]] = {}

TaskClass = TypeVar("TaskClass", bound=type[Task])


@dataclass_transform(frozen_default=True, kw_only_default=True)
def register(name: str) -> Callable[[TaskClass], TaskClass]:
    """Class decorator: makes a task known under ``name`` and its short name, and a frozen dataclass where it is none yet.

    Raises:
        ArchlabError: the name or the short name is taken by another class, or a knob has no default.
    """

    def add(task: TaskClass) -> TaskClass:
        if "__dataclass_params__" not in vars(task):
            dataclass(frozen=True, kw_only=True)(task)
        if not task.__module__.startswith("archlab."):
            import_modules(__package__)  # archlab's own tasks have their names before others ask for one
        short = vars(task).get("short", name)
        for other in _REGISTRY.values():
            taken = {name, short} & {other.name, other.short}
            is_same = (other.__module__, other.__qualname__) == (task.__module__, task.__qualname__)
            if taken and not is_same:
                raise ArchlabError(f"task name {min(taken)!r} is taken by {other.__module__}.{other.__qualname__}")
        for knob in fields(task):
            if knob.default is MISSING:
                raise ArchlabError(f"task {name!r}: its knob {knob.name} needs a default, as in {knob.name}: int = 16")
        task.name, task.short = name, short
        _REGISTRY[name] = task
        return task

    return add


def registry() -> Mapping[str, type[Task]]:
    """Every known task by name, in the order of tables."""
    import_installed(__package__)
    return dict(sorted(_REGISTRY.items(), key=lambda item: (item[1].order, item[0])))


def find_task(name: str) -> type[Task]:
    """The task of a name or short name: ``find_task("recall")`` is in-context recall.

    Raises:
        ArchlabError: there is no such task.
    """
    check_value("task", name, str)
    known = registry()
    by_short = {task.short: task for task in known.values()}
    if name not in known and name not in by_short:
        raise ArchlabError(f"{unknown('task', name, {*known, *by_short})}{import_installed(__package__)}")
    return known.get(name) or by_short[name]


def task_order(name: str) -> tuple[int, str]:
    """Sort key of tables: a task's rank, then its name; a task that is not known has the rank of a task that states none."""
    return registry().get(name, Task).order, name


def counted(names: Sequence[str]) -> tuple[str, ...]:
    """The tasks whose mean is the score of an architecture: those of MAD, or all if none of them is."""
    return tuple(name for name in names if suite_of(name) == "mad") or tuple(names)


def suite_of(name: str) -> str:
    """The suite of a task by its name; ``other`` of a task that is not known."""
    return registry().get(name, Task).suite


def setting(name: str, **knobs: Any) -> Task:
    """A task with some knobs changed from its base setting: ``task("compression", length=64)``.

    Args:
        name: name or short name of the task.
        knobs: changed knobs.

    Raises:
        ArchlabError: unknown task or knob, or knobs that cannot be met together.
    """
    task = find_task(name)
    names = [f.name for f in fields(task)]
    for knob in knobs:
        if knob not in names:
            raise unknown(f"knob of {task.name}:", knob, names)
    return task(**knobs)
