"""The contract of a task as checks for any task."""

from dataclasses import FrozenInstanceError, fields
from typing import ClassVar

import numpy as np

from archlab.errors import ArchlabError
from archlab.tasks import IGNORE, Arrays, Task, registry, sample, setting
from archlab.tasks.contract import Split
from archlab.tasks.registry import find_task


class TaskContract:
    """Checks that a task keeps its contract; inherit, give a setting, run pytest.

    .. code-block:: python

        class TestMyTask(TaskContract):
            task = setting("my-task", vocab_size=32)
    """

    task: ClassVar[Task]
    """The setting under test; its task is registered."""
    num_sequences: ClassVar[int] = 300
    """Sequences that a check draws; with more, :attr:`Task.chance` is checked more closely."""

    _SPLITS: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")

    def _sample(self, split: Split, n: int | None = None, seed: int = 0) -> Arrays:
        return sample(self.task, split, n=self.num_sequences if n is None else n, seed=seed)

    # What it is

    def test_setting_is_a_value(self) -> None:
        assert registry()[self.task.name] is find_task(self.task.short) is type(self.task)
        again = setting(self.task.name, **self.task.knobs())
        assert again == self.task
        assert hash(again) == hash(self.task)
        try:
            self.task.length = 1  # type: ignore[misc]
        except FrozenInstanceError:
            pass
        else:
            raise AssertionError(f"{self.task.name} is not frozen")

    def test_base_setting_is_its_name(self) -> None:
        assert str(setting(self.task.name)) == self.task.name

    def test_documentation_says_what_is_asked_and_draws_an_instance(self) -> None:
        assert self.task.summary.strip(), "summary is empty"
        assert "\n" not in self.task.summary, "summary is longer than a line"
        drawn = type(self.task).__doc__ or ""
        assert "input " in drawn, "the docstring draws no instance: lines that begin with 'input' and 'target'"
        assert "target " in drawn, "the docstring draws no instance: lines that begin with 'input' and 'target'"
        assert self.task.backbone in ("language-model", "auto-encoder")

    def test_every_token_id_has_one_role(self) -> None:
        ids = sorted(i for role in self.task.describe_tokens().values() for i in role)
        assert ids == list(range(self.task.vocab_size))

    def test_signs_are_single_characters(self) -> None:
        assert all(len(sign) == 1 for sign in self.task.signs.values()), f"signs={dict(self.task.signs)}"

    # What it draws

    def test_arrays_are_as_promised(self) -> None:
        for split in self._SPLITS:
            for n in (0, 1, self.num_sequences):
                inputs, targets = self._sample(split, n)
                for array in (inputs, targets):
                    assert array.dtype == np.int64
                    assert array.shape == (n, self.task.input_length)
                    assert array.flags.c_contiguous
                assert not np.shares_memory(inputs, targets)
                assert ((inputs >= 0) & (inputs < self.task.vocab_size)).all(), f"{split}: an input is no token id"
                is_answer = targets != IGNORE
                assert ((targets >= 0) & (targets < self.task.vocab_size))[is_answer].all(), f"{split}: a target is no token id"
                assert is_answer.any(axis=1).all(), f"{split}: a sequence asks nothing"

    def test_default_number_of_sequences(self) -> None:
        assert len(sample(self.task, "train")[0]) == self.task.num_train_examples
        assert len(sample(self.task, "test")[0]) == 1280

    def test_same_seed_same_arrays(self) -> None:
        state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator must be left alone
        for split in self._SPLITS:
            for first, second in zip(self._sample(split), self._sample(split), strict=True):
                np.testing.assert_array_equal(first, second)
        np.testing.assert_equal(np.random.get_state(legacy=False), state)  # noqa: NPY002

    def test_splits_and_seeds_share_no_draw(self) -> None:
        drawn = [self._sample(split, seed=seed)[0].tobytes() for split in self._SPLITS for seed in (0, 1)]
        assert len(set(drawn)) == len(drawn)

    def test_evaluation_data_do_not_depend_on_the_number_of_training_examples(self) -> None:
        smaller = setting(self.task.name, **self.task.knobs() | {"num_train_examples": 1})
        for first, second in zip(self._sample("test"), sample(smaller, "test", n=self.num_sequences), strict=True):
            np.testing.assert_array_equal(first, second)

    def test_chance_is_what_guessing_by_position_reaches(self) -> None:
        _, seen = self._sample("validation")
        _, asked = self._sample("test")
        counts = np.stack([(seen == token).sum(axis=0) for token in range(self.task.vocab_size)])
        anywhere = counts.sum(axis=1).argmax()
        guess = np.where(counts.any(axis=0), counts.argmax(axis=0), anywhere)
        right = (guess == asked)[asked != IGNORE]
        # Answers of one sequence may depend on each other, so the sequences are what is counted.
        tolerance = 4 * np.sqrt(self.task.chance * (1 - self.task.chance) / self.num_sequences)
        assert abs(right.mean() - self.task.chance) < tolerance, f"{right.mean():.4f} by guessing, chance={self.task.chance:.4f}"

    # What it refuses

    def test_impossible_knobs_are_refused_in_one_line(self) -> None:
        for knob in [f.name for f in fields(self.task)]:
            for value in ("many", None, *((0, -1) if knob in ("vocab_size", "length", "num_train_examples") else ())):
                refusal = self._refusal(**{knob: value})
                assert refusal is not None, f"{knob}={value!r} is accepted"
                assert knob in refusal, f"does not name {knob}: {refusal}"
                assert self.task.name in refusal, f"does not name {self.task.name}: {refusal}"
                assert "\n" not in refusal, f"not one line: {refusal}"
        assert self._refusal(no_such_knob=1) is not None

    def _refusal(self, **knobs: object) -> str | None:
        try:
            setting(self.task.name, **self.task.knobs() | knobs)
        except ArchlabError as error:
            return str(error)
        return None
