"""Hierarchical bootstrap over seeds and the test units within them; everything is vectorised over resamples."""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archlab.machine import one_blas_thread
from archlab.tasks import Task

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
"""Probability of the intervals of scores."""
SEED = 0
"""Seed of their bootstrap samples."""
_TOGETHER = 256
"""Cells whose samples are computed at once: few enough for the cache of a core."""


@dataclass(frozen=True)
class Units:
    """The scores of one trained model by test unit: score = numerators.sum() / denominators.sum()."""

    numerators: NDArray[Any]
    """Numbers that float32 holds."""
    denominators: NDArray[Any]

    @cached_property
    def score(self) -> float:
        """The score on all units."""
        return float(self.numerators.sum(dtype=np.float64) / self.denominators.sum(dtype=np.float64))


@dataclass(frozen=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float


def percentile_interval(samples: Floats, confidence: float = CONFIDENCE) -> Interval:
    """The interval that holds the central ``confidence`` fraction of the samples."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def resampled_means(cells: Sequence[Sequence[Units]], *, resamples: int, seed: int, stream: str) -> Floats:
    """Bootstrap samples of each cell's mean score over seeds: ``(cells, resamples)``.

    A cell is a list of seeds, each with its test units. Every resample draws as many seeds as there are, with replacement, and
    units within each drawn seed. Cells with the same numbers of seeds and units see the same draws, so differences of samples
    are paired; the same ``seed`` and ``stream`` give the same draws in every call.

    The spread between S seeds is widened by sqrt(S / (S - 1)), since resampling S values underestimates their variance by
    (S - 1) / S (Davison and Hinkley, Bootstrap Methods, sec. 3.8), and samples are cut to [0, 1]. With one seed only test units
    are resampled. Where the spread between seeds dominates, few seeds still give too narrow intervals, see docs/scores.md.
    """
    samples = np.empty((len(cells), resamples))
    shapes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        shapes[tuple(units.numerators.size for units in cell)].append(index)
    for sizes, members in shapes.items():
        draws = [_Draws.of([seed, zlib.crc32(stream.encode()), position], sizes, resamples) for position in range(len(sizes))]
        for start in range(0, len(members), _TOGETHER):
            some = members[start : start + _TOGETHER]
            samples[some] = _resample_alike([cells[i] for i in some], draws)
    return samples


@one_blas_thread()
def bootstrap_settings(
    architectures: Sequence[Mapping[Task, Sequence[Units]]], settings: Mapping[str, Sequence[Task]], *, resamples: int
) -> list[dict[Task, Floats]]:
    """Bootstrap samples of every setting's score, for several architectures with the same draws.

    ``architectures`` have the test units of every scored seed by setting. The settings of a task share their draws too: they
    may share evaluation data and initialisation.
    """
    samples: list[dict[Task, Floats]] = [{} for _ in architectures]
    for task, of_task in settings.items():
        cells = [
            (own, setting, units[setting])
            for own, units in zip(samples, architectures, strict=True)
            for setting in of_task
            if units[setting]
        ]
        drawn = resampled_means([units for _, _, units in cells], resamples=resamples, seed=SEED, stream=task)
        for (own, setting, _), row in zip(cells, drawn, strict=True):
            own[setting] = row
    return samples


class _Draws(NamedTuple):
    """The seeds and units that one place of a resample is filled with, in every resample."""

    seeds: NDArray[np.int64]
    """The index of the seed: ``(resamples,)``."""
    counts: list[tuple[NDArray[np.int64], NDArray[np.uint16]]]
    """For each seed the resamples that it is in, and the number of times that they draw each of its units."""

    @classmethod
    def of(cls, entropy: list[int], sizes: tuple[int, ...], resamples: int) -> "_Draws":
        rng = np.random.default_rng(entropy)
        drawn = rng.integers(0, len(sizes), size=resamples)
        rows = [np.flatnonzero(drawn == index) for index in range(len(sizes))]
        return cls(drawn, [(own, _multiplicities(rng, own.size, size)) for own, size in zip(rows, sizes, strict=True)])


def _resample_alike(cells: Sequence[Sequence[Units]], draws: Sequence[_Draws]) -> Floats:
    num_seeds, resamples = len(draws), draws[0].seeds.size
    observed = np.array([[units.score for units in cell] for cell in cells])
    units = [
        (
            np.stack([cell[index].numerators for cell in cells], axis=1, dtype=np.float32),
            *_distinct([cell[index].denominators for cell in cells]),
        )
        for index in range(num_seeds)
    ]
    between = np.zeros((resamples, len(cells)))
    within = np.zeros((resamples, len(cells)))
    for drawn, counts_by_seed in draws:
        between += observed.T[drawn]
        for index, (rows, drawn_units) in enumerate(counts_by_seed):
            counts = drawn_units.astype(np.float32)
            numerators, distinct, which = units[index]
            denominators = (counts @ distinct)[:, which]
            # A resample without a single answer says nothing new about the score.
            ratios = np.where(denominators > 0, (counts @ numerators) / np.maximum(denominators, 1e-9), observed[:, index])
            within[rows] += ratios - observed[:, index]
    mean = observed.mean(axis=1)
    widening = np.sqrt(num_seeds / (num_seeds - 1)) if num_seeds > 1 else 0.0
    samples: Floats = mean + widening * (between / num_seeds - mean) + within / num_seeds
    return np.clip(samples, 0.0, 1.0).T


def _distinct(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float32], list[int]]:
    """The different ones of these arrays as columns, and which of them each is; cells may share an array."""
    distinct = {id(array): array for array in arrays}
    position = {name: index for index, name in enumerate(distinct)}
    return np.stack([*distinct.values()], axis=1, dtype=np.float32), [position[id(array)] for array in arrays]


def _multiplicities(rng: np.random.Generator, resamples: int, size: int) -> NDArray[np.uint16]:
    """Number of times that each of ``size`` units is drawn in each resample: ``(resamples, size)``."""
    drawn = rng.integers(0, size, size=(resamples, size))
    drawn += size * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.uint16)
