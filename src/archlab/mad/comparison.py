"""Paired differences of architectures."""

from collections.abc import Mapping

import numpy as np

from archlab.errors import unknown
from archlab.mad.architecture_score import ArchitectureScore, SeedScore
from archlab.mad.bootstrap import bootstrap_settings, percentile_interval
from archlab.mad.scores import Difference, Scores
from archlab.tasks import Task

Chosen = Mapping[Task, tuple[SeedScore, ...]]
"""For every setting, the seeds with their scores."""


def difference(scores: Scores, first: str, second: str, task: str | None = None) -> Difference | None:
    """The paired difference of two architectures' scores on a task, or of their MAD scores.

    Both are resampled together: the same seeds and the same test units. None if they share no setting and seed. Refuses
    architectures and tasks that are not scored.
    """
    if task is not None and task not in scores.tasks:
        raise unknown("task", task, scores.tasks)
    pair = _find(scores, first), _find(scores, second)
    common = _common(*pair)
    of_task = {name: [x for x in common[0] if x.name == name] for name in ([task] if task else scores.counted)}
    settings = {name: found for name, found in of_task.items() if found}
    if not settings:
        return None
    if all(architecture.complete for architecture in pair):  # then the scores' own samples are already paired
        scored = [one if task is None else next(part for part in one.tasks if part.task == task) for one in pair]
        samples = [part.samples for part in scored if part.samples is not None]
    else:
        units = [{x: [seed.units for seed in own[x] if seed.units is not None] for x in own} for own in common]
        drawn = bootstrap_settings(units, settings, resamples=scores.resamples)
        samples = [np.mean([np.mean([own[x] for x in found], axis=0) for found in settings.values()], axis=0) for own in drawn]
    scores_of = [{x: np.mean([seed.score for seed in seeds]) for x, seeds in own.items()} for own in common]
    means = [np.mean([np.mean([own[x] for x in found]) for found in settings.values()]) for own in scores_of]
    a, b = samples
    return Difference(
        first=first,
        second=second,
        task=task,
        mean=float(means[0] - means[1]),
        interval=percentile_interval(a - b),
        superiority=float(np.mean(a > b) + 0.5 * np.mean(a == b)),
    )


def differences_to_best(scores: Scores) -> list[Difference]:
    """Each other architecture's difference to the best one, the first of the ranking, in the MAD score."""
    ranked = [architecture.label for architecture in scores.architectures if architecture.score is not None]
    found = [difference(scores, other, ranked[0]) for other in ranked[1:]]
    return [x for x in found if x is not None]


def _find(scores: Scores, label: str) -> ArchitectureScore:
    for architecture in scores.architectures:
        if label in (architecture.label, str(architecture.architecture)):
            return architecture
    raise unknown("architecture", label, [a.label for a in scores.architectures])


def _common(first: ArchitectureScore, second: ArchitectureScore) -> tuple[Chosen, Chosen]:
    """Both architectures' seeds by setting, without the seeds that only one of them has a score for."""
    sides = [
        {s.setting: {x.seed: x for x in s.seeds if x.score is not None} for t in a.tasks for s in t.settings}
        for a in (first, second)
    ]
    shared = {setting: sorted(sides[0][setting].keys() & sides[1][setting].keys()) for setting in sides[0] if setting in sides[1]}
    kept = [{setting: tuple(side[setting][n] for n in seeds) for setting, seeds in shared.items() if seeds} for side in sides]
    return kept[0], kept[1]
