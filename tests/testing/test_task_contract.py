"""The contract suite of tasks finds what is wrong with a task."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from archlab.errors import ArchlabError
from archlab.tasks import IGNORE, Arrays, Task, registry
from archlab.tasks.registry import _REGISTRY
from archlab.testing.tasks import TaskContract


@dataclass(frozen=True, kw_only=True)
class Echo(Task):
    """Say the first token again at the end.

    ::

        input    t3 t1 t2
        target    .  . t3
    """

    name = "echo"
    short = "echo"
    summary = "say the first token at the end"

    vocab_size: int = 8
    length: int = 6
    num_train_examples: int = 64

    def check(self) -> None:
        if self.vocab_size < 2:
            raise ArchlabError(f"{self.name}: vocab_size={self.vocab_size}: give at least 2")

    @property
    def chance(self) -> float:
        return 1 / self.vocab_size

    def describe_tokens(self) -> dict[str, range]:
        return {"token": range(self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        inputs = rng.integers(self.vocab_size, size=(n, self.length))
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = inputs[:, 0]
        return inputs, targets


class NarrowIntegers(Echo):
    def generate(self, rng, n, *, training):
        inputs, targets = super().generate(rng, n, training=training)
        return inputs.astype(np.int32), targets


class OneTargetShort(Echo):
    def generate(self, rng, n, *, training):
        inputs, targets = super().generate(rng, n, training=training)
        targets[-1:] = IGNORE
        return inputs, targets


class BeyondVocabulary(Echo):
    def generate(self, rng, n, *, training):
        inputs, targets = super().generate(rng, n, training=training)
        return inputs + 1, targets


class GlobalGenerator(Echo):
    def generate(self, rng, n, *, training):
        return super().generate(np.random.default_rng(np.random.randint(1 << 30)), n, training=training)  # noqa: NPY002


class IgnoresItsGenerator(Echo):
    def generate(self, rng, n, *, training):
        return super().generate(np.random.default_rng(0), n, training=training)


class ChanceTooHigh(Echo):
    chance = 0.5


class RolesMissing(Echo):
    def describe_tokens(self):
        return {"token": range(self.vocab_size - 1)}


class LongSigns(Echo):
    signs: ClassVar[dict[str, str]] = {"token": "<t>"}


class Undrawn(Echo):
    """Nothing is drawn here."""


class DependsOnTrainingExamples(Echo):
    def generate(self, rng, n, *, training):
        inputs, targets = super().generate(rng, n, training=training)
        return np.where(inputs == 0, self.num_train_examples % 2, inputs), targets


BROKEN = {
    NarrowIntegers: "test_arrays_are_as_promised",
    OneTargetShort: "test_arrays_are_as_promised",
    BeyondVocabulary: "test_arrays_are_as_promised",
    GlobalGenerator: "test_same_seed_same_arrays",
    IgnoresItsGenerator: "test_splits_and_seeds_share_no_draw",
    ChanceTooHigh: "test_chance_is_what_guessing_by_position_reaches",
    RolesMissing: "test_every_token_id_has_one_role",
    LongSigns: "test_signs_are_single_characters",
    Undrawn: "test_documentation_says_what_is_asked_and_draws_an_instance",
    DependsOnTrainingExamples: "test_evaluation_data_do_not_depend_on_the_number_of_training_examples",
}


def failed_checks(task_class: type[Task], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    registry()
    monkeypatch.setitem(_REGISTRY, "echo", task_class)
    suite = type("Suite", (TaskContract,), {"task": task_class()})()
    failed = set()
    for check in [name for name in dir(suite) if name.startswith("test_")]:
        try:
            getattr(suite, check)()
        except AssertionError:
            failed.add(check)
    return failed


def test_a_sound_task_passes(monkeypatch: pytest.MonkeyPatch):
    assert failed_checks(Echo, monkeypatch) == set()


@pytest.mark.parametrize("task_class", BROKEN, ids=lambda c: c.__name__)
def test_a_broken_task_fails_the_check_for_it(task_class: type[Task], monkeypatch: pytest.MonkeyPatch):
    if task_class.__doc__ is None:
        task_class.__doc__ = Echo.__doc__
    assert BROKEN[task_class] in failed_checks(task_class, monkeypatch)


def test_a_task_that_accepts_anything_fails(monkeypatch: pytest.MonkeyPatch):
    class AcceptsAnything(Echo):
        def __post_init__(self) -> None:
            pass

    assert failed_checks(AcceptsAnything, monkeypatch) >= {"test_impossible_knobs_are_refused_in_one_line"}
