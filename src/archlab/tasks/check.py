"""Tasks from outside archlab are tried before anything is trained."""

import math
from collections.abc import Iterable
from typing import get_args

import numpy as np

from archlab.errors import ArchlabError, in_one_line
from archlab.fields import naming
from archlab.isolation import undone
from archlab.tasks.contract import IGNORE, Arrays, Split, Task
from archlab.tasks.splits import sample

_DRAWN = 8


def check_outside(settings: Iterable[Task]) -> None:
    """Draw a few sequences of every setting of a task from outside archlab.

    Raises:
        ArchlabError: naming the setting and what is wrong: chance, the arrays, an id beyond the vocabulary, a sequence that
            asks nothing, splits that are equal, or what its code raises.
    """
    for setting in settings:
        if not type(setting).__module__.startswith("archlab."):
            with naming(str(setting)), undone():
                try:
                    fault = _fault(setting)
                except Exception as error:
                    fault = f"drawing sequences fails: {in_one_line(error)}"
                if fault:
                    raise ArchlabError(fault)


def _fault(setting: Task) -> str:
    """The fault of a setting, as a verb phrase; empty if it has none."""
    chance = setting.chance
    if not (isinstance(chance, float | int) and math.isfinite(chance) and 0 <= chance <= 1):
        return f"chance={chance!r}: return a fraction from 0 to 1"
    drawn = {split: sample(setting, split, n=_DRAWN) for split in get_args(Split)}
    for split, arrays in drawn.items():
        if fault := _fault_of_arrays(setting, arrays):
            return f"{split}: {fault}"
    if len({inputs.tobytes() + targets.tobytes() for inputs, targets in drawn.values()}) < len(drawn):
        return "its splits are equal: draw from the given generator only"
    return ""


def _fault_of_arrays(setting: Task, arrays: Arrays) -> str:
    shape = (_DRAWN, setting.input_length)
    for name, array in zip(("inputs", "targets"), arrays, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != shape:
            found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            return f"{name} are {found}: return int64 of shape {shape}"
        allowed = ((array >= 0) & (array < setting.vocab_size)) | ((array == IGNORE) & (name == "targets"))
        if not allowed.all():
            return f"{name} have the id {array[~allowed][0]}: the vocabulary has 0 to {setting.vocab_size - 1}"
    if not (arrays[1] != IGNORE).any(axis=1).all():
        return "a sequence asks nothing: give it a target"
    return ""
