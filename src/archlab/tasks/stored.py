"""Settings as a store holds them, also those of tasks that are not available: a results store outlives its tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from functools import cache
from typing import Any

import numpy as np
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import check_value
from archlab.tasks.contract import Arrays, Task
from archlab.tasks.registry import find_task, setting

UNAVAILABLE = "task not available"


@dataclass(frozen=True, kw_only=True)
class UnavailableTask(Task):
    """The knobs of a task that is not known here. It draws nothing, and its chance, which is not known either, is 0."""

    @override
    def check(self) -> None:
        pass

    @override
    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        raise ArchlabError(f"{self}: give its file by --tasks-file")

    @property
    @override
    def chance(self) -> float:
        return 0.0

    @override
    def describe_tokens(self) -> dict[str, range]:
        return {}

    @override
    def __str__(self) -> str:
        return f"{super().__str__()} ({UNAVAILABLE})"


def stored_setting(name: str, knobs: Mapping[str, Any]) -> Task:
    """The setting that a store holds as the name of a task and its knobs; of an :class:`UnavailableTask` if the task is not
    known, or comes from outside archlab and refuses its knobs by now."""
    ours = False
    try:
        ours = find_task(name).__module__.startswith("archlab.")
        return setting(name, **knobs)
    except ArchlabError:
        if ours:
            raise
        values: dict[str, Any] = {knob: tuple(value) if isinstance(value, list) else value for knob, value in knobs.items()}
        return _unavailable(name, tuple(knobs))(**values)


def is_known(value: Task) -> bool:
    """Whether the task of a setting is known."""
    return not isinstance(value, UnavailableTask)


@cache
def _unavailable(name: str, knobs: tuple[str, ...]) -> type[UnavailableTask]:
    """The task of a name, with knobs of these names."""
    check_value("task", name, str)
    own = [(knob, Any) for knob in knobs if knob not in {field.name for field in fields(Task)}]
    named = {"name": name, "short": name, "summary": "", "__module__": __name__}
    return make_dataclass("Unavailable", own, bases=(UnavailableTask,), namespace=named, frozen=True, kw_only=True)
