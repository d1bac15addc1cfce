"""Comparisons: paired differences of architectures, and the agreement of two rankings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from archlab.errors import ArchlabError, unknown
from archlab.mad.bootstrap import Floats, Interval, bootstrap_settings, percentile_interval
from archlab.mad.scores import ArchitectureScore, Difference, Scores, SeedScore

if TYPE_CHECKING:
    from archlab.tasks import Task

Chosen = Mapping["Task", tuple[SeedScore, ...]]
"""For every setting, the seeds with their scores."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b between two rankings of the same architectures."""

    tau: float | None
    """None if one of them gives all architectures the same rank."""
    interval: Interval | None
    num_architectures: int


def difference(scores: Scores, first: str, second: str, task: str | None = None) -> Difference | None:
    """The paired difference of two architectures' scores on a task, or of their MAD scores.

    Both are resampled together: the same seeds and the same test units. None if they share no setting and seed. Refuses
    architectures and tasks that are not scored.
    """
    if task is not None and task not in scores.tasks:
        raise unknown("task", task, scores.tasks)
    pair = _find(scores, first), _find(scores, second)
    common = _common(*pair)
    settings = {name: [x for x in common[0] if x.name == name] for name in ([task] if task else scores.tasks)}
    settings = {name: found for name, found in settings.items() if found}
    if not settings:
        return None
    if all(architecture.complete for architecture in pair):  # then the scores' own samples are already paired
        samples = [_samples_of(architecture, task) for architecture in pair]
    else:
        units = [{x: [seed.units for seed in own[x] if seed.units is not None] for x in own} for own in common]
        drawn = bootstrap_settings(units, settings, resamples=scores.resamples, seed=scores.bootstrap_seed)
        samples = [np.mean([np.mean([own[x] for x in found], axis=0) for found in settings.values()], axis=0) for own in drawn]
    scores_of = [{x: np.mean([seed.score for seed in seeds]) for x, seeds in own.items()} for own in common]
    means = [np.mean([np.mean([own[x] for x in found]) for found in settings.values()]) for own in scores_of]
    a, b = samples
    return Difference(
        first=first,
        second=second,
        task=task,
        mean=float(means[0] - means[1]),
        interval=percentile_interval(a - b, scores.confidence),
        superiority=float(np.mean(a > b) + 0.5 * np.mean(a == b)),
    )


def differences_to_best(scores: Scores, task: str | None = None) -> list[Difference]:
    """Each other architecture's difference to the best one (the first of the ranking, or the task's best)."""
    ranked = [a for a in scores.architectures if _score_of(a, task) is not None]
    if not ranked:
        return []
    best = ranked[0] if task is None else max(ranked, key=lambda a: _score_of(a, task) or 0.0)
    found = [difference(scores, other.label, best.label, task) for other in ranked if other is not best]
    return [x for x in found if x is not None]


def rank_agreement(first: Scores, second: Scores, task: str | None = None) -> Agreement:
    """Kendall's tau-b between the rankings of two sets of scores, over the architectures in both.

    The interval comes from resampling both sides. Noise can only disturb a ranking, so the samples lie
    below the tau of the true scores on average: the interval is cautious.

    Raises:
        ArchlabError: fewer than two architectures are scored in both.
    """
    sides = [{a.label: a for a in side.architectures if _score_of(a, task) is not None} for side in (first, second)]
    labels = [label for label in sides[0] if label in sides[1]]
    if len(labels) < 2:
        raise ArchlabError(f"{len(labels)} architectures are scored on both sides: a ranking needs at least two")
    points = [np.array([[_score_of(side[label], task)] for label in labels], dtype=np.float64) for side in sides]
    samples = [np.stack([_samples_of(side[label], task) for label in labels]) for side in sides]
    resamples = min(side.shape[1] for side in samples)
    taus = _kendall_tau(samples[0][:, :resamples], samples[1][:, :resamples])
    tau = float(_kendall_tau(points[0], points[1])[0])
    known = taus[np.isfinite(taus)]
    return Agreement(
        tau=tau if np.isfinite(tau) else None,
        interval=percentile_interval(known, first.confidence) if known.size else None,
        num_architectures=len(labels),
    )


def _kendall_tau(first: Floats, second: Floats) -> Floats:
    """tau-b of each column: ``(items, columns)`` twice to ``(columns,)``; NaN where a side is all ties."""
    i, j = np.triu_indices(first.shape[0], k=1)
    x, y = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
    untied = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    taus: Floats = np.divide((x * y).sum(axis=0), untied, out=np.full(untied.shape, np.nan), where=untied > 0)
    return taus


def _find(scores: Scores, label: str) -> ArchitectureScore:
    for architecture in scores.architectures:
        if label in (architecture.label, str(architecture.architecture)):
            return architecture
    raise unknown("architecture", label, [a.label for a in scores.architectures])


def _score_of(architecture: ArchitectureScore, task: str | None) -> float | None:
    return architecture.score if task is None else next((t.score for t in architecture.tasks if t.task == task), None)


def _samples_of(architecture: ArchitectureScore, task: str | None) -> Floats:
    found = architecture.samples if task is None else next(t.samples for t in architecture.tasks if t.task == task)
    assert found is not None
    return found


def _common(first: ArchitectureScore, second: ArchitectureScore) -> tuple[Chosen, Chosen]:
    """Both architectures' seeds by setting, without the seeds that only one of them has a score for."""
    sides = [
        {s.setting: {x.seed: x for x in s.seeds if x.score is not None} for t in a.tasks for s in t.settings}
        for a in (first, second)
    ]
    shared = {setting: sorted(sides[0][setting].keys() & sides[1][setting].keys()) for setting in sides[0] if setting in sides[1]}
    kept = [{setting: tuple(side[setting][n] for n in seeds) for setting, seeds in shared.items() if seeds} for side in sides]
    return kept[0], kept[1]
