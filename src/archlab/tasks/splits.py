"""Draws the splits of a setting, each from a generator of its own."""

from __future__ import annotations

import hashlib
from typing import Any, get_args

import numpy as np

from archlab.errors import ArchlabError
from archlab.fields import Natural, checked
from archlab.tasks.contract import Arrays, Split, Task
from archlab.tasks.registry import setting

_SPLITS: tuple[Split, ...] = get_args(Split)


@checked
def sample(task: Task | str, split: Split = "train", n: Natural | None = None, seed: Natural = 0, **knobs: Any) -> Arrays:
    """Draw a split of a setting: the same arguments give the same arrays on every machine with the same NumPy.

    Each split has its own generator, an independent child of a :class:`numpy.random.SeedSequence` over
    the task's name, its knobs and the seed, so no draw is shared between splits or settings. The
    training split is drawn in the task's training variant, the others in its evaluation variant.

    Args:
        task: a setting, or the name (or short name) of a task whose base setting ``knobs`` change.
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
    if n is None:
        n = task.num_train_examples if split == "train" else 1280
    # num_train_examples is left out: a smaller training set shares its evaluation data with the larger one.
    identity = repr((task.name, sorted((k, v) for k, v in task.identity().items() if k != "num_train_examples")))
    entropy = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:16], "little")
    sequence = np.random.SeedSequence([entropy, seed], spawn_key=(_SPLITS.index(split),))
    return task.generate(np.random.Generator(np.random.PCG64(sequence)), n, training=split == "train")
