"""Every task one instance at a time, as one would first write it down, apart from the task's own generator.

A module defines ``GENERATORS`` (task name to function of the setting, a generator of random numbers and whether the training
variant is drawn), and may define ``NUMPY_GENERATORS`` (the same, where one call draws all random numbers of an instance as
easily), ``SETTINGS`` (further settings to put through the contract) and ``TINY`` (settings so small that whole sequences can
be counted).
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np

from archlab.tasks import Task

Instance = tuple[list[int], list[int]]
Generator = Callable[[Any, np.random.Generator, bool], Instance]

_MODULES = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]

GENERATORS: dict[str, Generator] = {name: value for m in _MODULES for name, value in m.GENERATORS.items()}
NUMPY_GENERATORS: dict[str, Generator] = {
    name: value for m in _MODULES for name, value in getattr(m, "NUMPY_GENERATORS", {}).items()
}
SETTINGS: list[Task] = [task for m in _MODULES for task in getattr(m, "SETTINGS", [])]
TINY: list[Task] = [task for m in _MODULES for task in getattr(m, "TINY", [])]


def generate(task: Task, rng: np.random.Generator, n: int, training: bool) -> tuple[np.ndarray, np.ndarray]:
    """``n`` instances, one after the other: inputs and targets, each ``(n, input_length)``."""
    drawn = [GENERATORS[task.name](task, rng, training) for _ in range(n)]
    return np.array([inputs for inputs, _ in drawn]), np.array([targets for _, targets in drawn])
