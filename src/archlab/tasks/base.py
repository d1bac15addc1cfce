"""The task contract: a task with its knobs fixed (a setting) draws labelled sequences.

One file adds a task: a frozen dataclass, registered under its name, whose fields are the difficulty
knobs and whose :meth:`Task.generate` draws a batch at once.
"""

import hashlib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError, unknown

IGNORE = -100
"""Target of a position without an answer."""

_LARGEST = 1 << 20
"""Vocabularies and lengths beyond fit neither the generators' 32-bit ids nor any model."""

Split = Literal["train", "validation", "test"]
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Arrays = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A setting: a task with its knobs fixed. Hashable, comparable; construction checks the knobs.

    Subclasses redeclare the common knobs with their own defaults and add theirs.
    """

    name: ClassVar[str]
    """Name on the command line, set by :func:`register`."""
    summary: ClassVar[str]
    """One line: what a model must be able to do."""
    backbone: ClassVar[Literal["language-model", "auto-encoder"]] = "language-model"
    """Which backbone the task is posed to."""

    vocab_size: int
    length: int
    num_train_examples: int

    def __post_init__(self) -> None:
        """Check the knobs.

        Raises:
            ArchlabError: naming task, knob, value and what would be possible.
        """
        for f in fields(self):
            value, default = getattr(self, f.name), f.default
            wanted = type(default)
            if wanted is float and type(value) is int:
                object.__setattr__(self, f.name, float(value))
            elif type(value) is not wanted:
                raise ArchlabError(f"{self.name}: {f.name}={value!r} is not of type {wanted.__name__}")
        for knob in ("vocab_size", "length", "num_train_examples"):
            if getattr(self, knob) < 1:
                raise ArchlabError(f"{self.name}: {knob}={getattr(self, knob)}: must be at least 1")
        for knob in ("vocab_size", "length"):
            if getattr(self, knob) > _LARGEST:
                raise ArchlabError(f"{self.name}: {knob}={getattr(self, knob)}: must be at most {_LARGEST}")
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise :class:`ArchlabError` with the reason if the knobs cannot be met together."""

    @abstractmethod
    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        """Draw ``n`` sequences: inputs and targets, each ``(n, input_length)`` int64, ignored = -100.

        ``training`` selects the training variant of the task (recall: every next token is a target)
        instead of the evaluation variant (only answers are).
        """

    @property
    def input_length(self) -> int:
        """Positions of an input sequence."""
        return self.length

    @property
    @abstractmethod
    def chance(self) -> float:
        """Expected token accuracy, in [0, 1], of the best guess that ignores the sequence."""

    @abstractmethod
    def describe_tokens(self) -> dict[str, range]:
        """The role of every token id, for people: ``{"key": range(0, 8), "value": range(8, 16)}``."""

    def knobs(self) -> dict[str, Any]:
        """Every knob with its value, in the order of declaration."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __str__(self) -> str:
        """The task and the knobs that differ from the task's base setting."""
        changed = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}({', '.join(changed)})" if changed else self.name


_REGISTRY: dict[str, type[Task]] = {}
TaskClass = TypeVar("TaskClass", bound=type[Task])


def register(name: str) -> Callable[[TaskClass], TaskClass]:
    """Class decorator: make a task known under ``name``."""

    def add(task: TaskClass) -> TaskClass:
        task.name = name
        _REGISTRY[name] = task
        return task

    return add


@cache
def _import_tasks() -> None:
    import archlab.tasks as package

    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "base":
            importlib.import_module(f"{package.__name__}.{module.name}")


def registry() -> Mapping[str, type[Task]]:
    """Every known task by name."""
    _import_tasks()
    return MappingProxyType(_REGISTRY)


def setting(name: str, **knobs: Any) -> Task:
    """A task with some knobs changed from its base setting: ``setting("compression", length=64)``.

    Raises:
        ArchlabError: unknown task or knob, or knobs that cannot be met together.
    """
    known = registry()
    if name not in known:
        raise unknown("task", name, known)
    task = known[name]
    names = [f.name for f in fields(task)]
    for knob in knobs:
        if knob not in names:
            raise unknown(f"knob of {name}:", knob, names)
    return task(**knobs)


def sample(task: Task | str, split: Split = "train", n: int | None = None, seed: int = 0, **knobs: Any) -> Arrays:
    """Draw a split of a setting: the same arguments give the same arrays on every machine with the same NumPy.

    Each split has its own generator, an independent child of a :class:`numpy.random.SeedSequence` over
    the task's name, its knobs and the seed, so no draw is shared between splits or settings. The
    training split is drawn in the task's training variant, the others in its evaluation variant.

    Args:
        task: a setting, or the name of a task whose base setting ``knobs`` change.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        n: sequences to draw; by default ``num_train_examples`` for train and 1280 otherwise.
        seed: any non-negative integer.

    Returns:
        Inputs and targets, each ``(n, input_length)`` int64; positions without an answer are -100.

    Raises:
        ArchlabError: unknown task, split or knob; impossible knobs; negative ``n`` or ``seed``.
    """
    if isinstance(task, str):
        task = setting(task, **knobs)
    elif knobs:
        raise ArchlabError(f"knobs {sorted(knobs)} given beside a setting: change the setting instead")
    if split not in _SPLITS:
        raise unknown("split", split, _SPLITS)
    if n is None:
        n = task.num_train_examples if split == "train" else 1280
    if n < 0 or seed < 0:
        raise ArchlabError(f"n={n}, seed={seed}: neither may be negative")
    # num_train_examples is left out: a smaller training set shares its evaluation data with the larger one.
    identity = repr((task.name, sorted((k, v) for k, v in task.knobs().items() if k != "num_train_examples")))
    entropy = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:16], "little")
    sequence = np.random.SeedSequence([entropy, seed], spawn_key=(_SPLITS.index(split),))
    return task.generate(np.random.Generator(np.random.PCG64(sequence)), n, training=split == "train")
