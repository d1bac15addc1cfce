"""The contract of a task: a task with its knobs fixed (a setting) draws labelled sequences.

One file adds a task: a frozen dataclass, registered under its name, whose fields are the difficulty knobs and whose
:meth:`Task.generate` draws a batch at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from archlab.fields import Count, between, check_fields

IGNORE = -100
"""Target of a position without an answer."""

_LARGEST = 1 << 20
"""Largest vocabulary and length: generators draw 32-bit ids, and no model is larger."""

Split = Literal["train", "validation", "test"]
Arrays = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A setting: a task with its knobs fixed. Hashable, comparable; construction checks the knobs.

    Subclasses redeclare the common knobs with their own defaults and add theirs; the bounds of the common knobs stay. Bounds of
    a knob are written as in :mod:`archlab.fields`: ``width: Annotated[int, at_least(1)] = 3``.
    """

    name: ClassVar[str]
    """Name in protocols, stores and on the command line, set by :func:`archlab.tasks.register`."""
    short: ClassVar[str]
    """Head of a column, and a second name on the command line; the name itself unless the class gives one."""
    order: ClassVar[int] = 100
    """Rank in tables; tasks of equal rank stand by name."""
    suite: ClassVar[str] = "other"
    """Group of tasks: ``mad`` for the six whose mean is the MAD score, ``recall`` or ``state``; others stand alone."""
    any_length: ClassVar[bool] = True
    """Whether a model that was trained at one length can be tested at another."""
    summary: ClassVar[str]
    """One line: what a model must be able to do."""
    backbone: ClassVar[Literal["language-model", "auto-encoder"]] = "language-model"
    """Backbone that the task is posed to."""
    signs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Characters that stand for roles of a single token in drawings, as in ``{"blank": "_"}``; others are written out."""
    background: ClassVar[frozenset[str]] = frozenset()
    """Roles that carry nothing to remember, drawn faintly: blanks, padding, noise."""

    later_knobs: ClassVar[frozenset[str]] = frozenset()
    """Knobs that the task got when results had been stored already: at their defaults they change neither draws nor keys."""
    level_knob: ClassVar[str] = ""
    """Knob that says how much must be remembered, of which a recipe's ``levels`` are values; empty if there is none."""

    vocab_size: Annotated[int, between(1, _LARGEST)]
    length: Annotated[int, between(1, _LARGEST)]
    num_train_examples: Count

    def __post_init__(self) -> None:
        """Check the knobs.

        Raises:
            ArchlabError: naming task, knob, value and what would be possible.
        """
        check_fields(self, self.name)
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Refuse knobs that cannot be met together.

        Raises:
            ArchlabError: naming the knob, its value and what would be possible.
        """

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
        """Role of every token id, for people: ``{"key": range(0, 8), "value": range(8, 16)}``."""

    def knobs(self) -> dict[str, Any]:
        """Every knob with its value, in the order of declaration."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def identity(self) -> dict[str, Any]:
        """The knobs by which draws are seeded and trials have keys: all, but for those added later that have their defaults."""
        defaults = {f.name: f.default for f in fields(self) if f.name in self.later_knobs}
        return {knob: value for knob, value in self.knobs().items() if knob not in defaults or value != defaults[knob]}

    def __str__(self) -> str:
        """The task and the knobs that differ from the task's base setting."""
        changed = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}({', '.join(changed)})" if changed else self.name
