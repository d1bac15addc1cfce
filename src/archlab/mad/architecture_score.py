"""The score of one architecture, and what it is made of: the scores of its tasks, settings and seeds."""

import itertools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from archlab.architectures import Architecture
from archlab.architectures.stored import is_known_by_name
from archlab.mad.bootstrap import Floats, Interval, Units
from archlab.mad.trial import Costs
from archlab.tasks import Task
from archlab.tasks.registry import counted
from archlab.tasks.stored import is_known

SOLVED = 0.9
"""Fraction of right answers at which a level counts as solved."""


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _means(seeds: Iterable[Iterable[tuple[int, float]]]) -> dict[int, float]:
    """Mean over seeds at each length or level, in ascending order."""
    found: dict[int, list[float]] = {}
    for at, score in itertools.chain.from_iterable(seeds):
        found.setdefault(at, []).append(score)
    return {at: statistics.fmean(scores) for at, scores in sorted(found.items())}


@dataclass(frozen=True, kw_only=True)
class SeedScore:
    """The best grid point of one architecture on one setting from one seed; or the reason there is none."""

    seed: int
    missing: str | None = None
    """Why there is no score; None if there is one."""
    score: float | None = None
    """On the test split, in [0, 1]."""
    key: str | None = None
    """Key of the trial that was selected."""
    learning_rate: float | None = None
    weight_decay: float | None = None
    learning_curve_area: float | None = None
    solved_step: int | None = None
    diverged: int = 0
    """Grid points that diverged: they count as chance."""
    units: Units | None = field(default=None, repr=False, compare=False)
    by_length: tuple[tuple[int, float], ...] = ()
    """Length and score of the recipe's ``test_lengths``."""
    by_level: tuple[tuple[int, float], ...] = ()
    """Level and score of the recipe's ``levels``."""
    curve: Floats | None = field(default=None, repr=False, compare=False)
    """Step and score on the selection split, see :func:`archlab.mad.scoring.learning_curve`: ``(points, 2)``."""


@dataclass(frozen=True)
class SettingScore:
    """An architecture's score on a setting: the mean over seeds."""

    setting: Task
    seeds: tuple[SeedScore, ...]
    interval: Interval | None

    @property
    def score(self) -> float | None:
        """Mean over the seeds that have a score."""
        return _mean(seed.score for seed in self.seeds)

    @property
    def by_length(self) -> dict[int, float]:
        """Mean score over seeds at every length at which the final weights were tested, that of the training included."""
        return _means(((self.setting.length, s.score), *s.by_length) for s in self.seeds if s.score is not None and s.by_length)

    @property
    def by_level(self) -> dict[int, float]:
        """Mean score over seeds at every level that was trained."""
        return _means(seed.by_level for seed in self.seeds)

    @property
    def capacity(self) -> float | None:
        """The largest level, such as a number of pairs, at which ``SOLVED`` of the answers are right; None without levels.

        Between two levels the score is taken to fall linearly in the logarithm of the level, below the first from 1 at level 0.
        At most the last level, however far the model could go.
        """
        if not self.by_level:
            return None
        solved, last = (0, 1.0), None
        for level, score in self.by_level.items():
            if score < SOLVED:
                last = (level, score)
                break
            solved = (level, score)
        if last is None:
            return float(solved[0])
        part = (solved[1] - SOLVED) / (solved[1] - last[1])
        return last[0] * part if solved[0] == 0 else float(solved[0] * (last[0] / solved[0]) ** part)

    @property
    def complete(self) -> bool:
        """Whether every seed has a score."""
        return all(seed.score is not None for seed in self.seeds)

    @property
    def learning_curve_area(self) -> float | None:
        """Mean over seeds of the area under the learning curve, in [0, 1]."""
        return _mean(seed.learning_curve_area for seed in self.seeds)

    @property
    def num_solved(self) -> int:
        """Number of seeds that reached the recipe's ``stop_accuracy`` on the selection split."""
        return sum(seed.solved_step is not None for seed in self.seeds)

    @property
    def steps_to_solve(self) -> float | None:
        """Median over the scored seeds, an unsolved seed counted as infinite; None if that is the median."""
        steps = [inf if s.solved_step is None else s.solved_step for s in self.seeds if s.score is not None]
        median = statistics.median(steps) if steps else inf
        return None if median == inf else float(median)


@dataclass(frozen=True)
class TaskScore:
    """An architecture's score on a task: the mean over the task's settings."""

    task: str
    settings: tuple[SettingScore, ...]
    interval: Interval | None
    samples: Floats | None = field(repr=False, compare=False)
    """Bootstrap samples of the score, paired between architectures."""

    @property
    def score(self) -> float | None:
        """Mean over the settings that have a score."""
        return _mean(setting.score for setting in self.settings)

    @property
    def available(self) -> bool:
        """Whether the task is known."""
        return all(is_known(setting.setting) for setting in self.settings)

    @property
    def chance(self) -> float | None:
        """The score of guessing: mean over the settings; None of a task that is not known."""
        return statistics.fmean(setting.setting.chance for setting in self.settings) if self.available else None

    @property
    def num_complete(self) -> int:
        """Number of settings whose seeds all have a score."""
        return sum(setting.complete for setting in self.settings)

    @property
    def complete(self) -> bool:
        """Whether every setting is complete."""
        return self.num_complete == len(self.settings)

    @property
    def learning_curve_area(self) -> float | None:
        """Mean over the settings."""
        return _mean(setting.learning_curve_area for setting in self.settings)


@dataclass(frozen=True)
class ArchitectureScore:
    """An architecture's MAD score: the mean over the tasks of MAD, or over all tasks if none of them is of MAD."""

    architecture: Architecture
    tasks: tuple[TaskScore, ...]
    interval: Interval | None
    samples: Floats | None = field(repr=False, compare=False)
    costs: Costs

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.architecture.label

    @property
    def available(self) -> bool:
        """Whether its layers are known: scores and pages need only what the store holds."""
        return is_known_by_name(self.architecture)

    @property
    def score(self) -> float | None:
        """Mean over the tasks that count and have a score."""
        return _mean(task.score for task in self.in_mean)

    @property
    def in_mean(self) -> tuple[TaskScore, ...]:
        """The tasks that count."""
        names = counted([task.task for task in self.tasks])
        return tuple(task for task in self.tasks if task.task in names)

    @property
    def num_complete(self) -> int:
        """Number of settings whose seeds all have a score."""
        return sum(task.num_complete for task in self.tasks)

    @property
    def num_settings(self) -> int:
        """Number of settings in the plan."""
        return sum(len(task.settings) for task in self.tasks)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.num_complete == self.num_settings

    @property
    def num_diverged(self) -> int:
        """Number of diverged trials, over all settings, seeds and grid points."""
        return sum(seed.diverged for task in self.tasks for setting in task.settings for seed in setting.seeds)

    @property
    def gaps(self) -> list[str]:
        """Reasons for missing scores, one line for each setting and seed."""
        return [
            f"{self.label}: {setting.setting}, seed {seed.seed}: {seed.missing}"
            for task in self.tasks
            for setting in task.settings
            for seed in setting.seeds
            if seed.missing is not None
        ]
