"""Scores with intervals from the records of trials.

The score of a setting for one seed is that of the grid point that was chosen on the selection split, see
:mod:`archlab.mad.selection`, read on the test split. A setting's score is the mean over seeds, a task's the mean over
its settings, the MAD score the mean over tasks (arXiv 2403.17844, sec. 3). What is missing is named and never
averaged away in silence: an incomplete score is marked as partial, with the number of settings that it has.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from archlab.architectures import Architecture
from archlab.architectures.stored import is_available
from archlab.errors import ArchlabError
from archlab.mad.bootstrap import Floats, Interval, Units, bootstrap_settings, percentile_interval
from archlab.mad.comparison import differences_to_best
from archlab.mad.scores import ArchitectureScore, Scores, SeedScore, SettingScore, TaskScore
from archlab.mad.selection import choose, grid_order, metric, solves
from archlab.mad.spending import spending
from archlab.mad.store import Record
from archlab.mad.trial import Costs, Trial, TrialResult
from archlab.tasks import Task
from archlab.tasks.registry import task_order
from archlab.tasks.stored import is_known

Planned = tuple[Trial, Record | None]


def score(
    trials: Iterable[Trial], records: Mapping[str, Record], *, protocol: str | None = None, resamples: int = 1000
) -> Scores:
    """Score the trials of a plan: layers and tasks that are not available as a store describes them.

    ``records`` are found by the keys of the trials; what is missing is named in the scores. Intervals are from ``resamples``
    bootstrap samples. Refuses an empty plan, and a setting that is trained under more than one condition.
    """
    planned = [(trial, records.get(trial.key)) for trial in dict.fromkeys(trials)]
    if not planned:
        raise ArchlabError("there is nothing to score: run a protocol first, for example archlab run transformer++")
    _check_conditions(planned)
    cells: dict[tuple[Architecture, Task, int], list[Planned]] = defaultdict(list)
    grids: dict[Task, set[tuple[float, float]]] = defaultdict(set)
    seeds: dict[Task, set[int]] = defaultdict(set)
    for trial, record in planned:
        cells[trial.architecture, trial.setting, trial.seed].append((trial, record))
        grids[trial.setting].add((trial.learning_rate, trial.weight_decay))
        seeds[trial.setting].add(trial.seed)
    tasks = sorted({setting.name for setting in grids}, key=task_order)
    settings = {task: [setting for setting in grids if setting.name == task] for task in tasks}
    chosen = {
        name: {
            setting: tuple(_seed_score(seed, cells[name, setting, seed], len(grids[setting])) for seed in sorted(seeds[setting]))
            for setting in grids
        }
        for name in dict.fromkeys(trial.architecture for trial, _ in planned)
    }
    units = [
        {setting: [seed.units for seed in per_seed if seed.units is not None] for setting, per_seed in own.items()}
        for own in chosen.values()
    ]
    samples = bootstrap_settings(units, settings, resamples=resamples)
    # Costs are stated at the first known task in the usual order, at its shortest length.
    reference = min(
        (trial for trial, _ in planned),
        key=lambda t: (not is_known(t.setting), task_order(t.setting.name), t.setting.length, t.setting.vocab_size),
    )
    ranked = [
        _architecture_score(name, chosen[name], settings, own, _costs(replace(reference, architecture=name), planned))
        for name, own in zip(chosen, samples, strict=True)
    ]
    ranked.sort(key=lambda a: (a.score is None, not a.complete, -(a.score or 0.0)))
    several = all(len(found) > 1 for found in seeds.values())
    found = Scores(
        protocol=protocol,
        architectures=tuple(ranked),
        tasks=tuple(tasks),
        resamples=resamples,
        interval_over="seeds and test instances" if several else "test instances",
        reference=reference.setting,
        dim=reference.dim,
        spending=spending((trial, None if record is None else record.result) for trial, record in planned),
        records=tuple(record for _, record in planned if record is not None),
        differences=(),
    )
    return replace(found, differences=tuple(differences_to_best(found)))


def _check_conditions(planned: Sequence[Planned]) -> None:
    """Refuse to mix: a setting is trained with one recipe, at one width, on one kind of device."""
    seen: dict[Task, dict[str, object]] = {}
    for trial, _ in planned:
        condition = {"dim": trial.dim, "device": trial.device, **{f"recipe.{k}": v for k, v in asdict(trial.recipe).items()}}
        first = seen.setdefault(trial.setting, condition)
        if first != condition:
            differing = ", ".join(f"{k}={first[k]} and {k}={condition[k]}" for k in condition if first[k] != condition[k])
            raise ArchlabError(
                f"{trial.setting} was trained under different conditions ({differing}): score one protocol at a time"
            )


def _seed_score(seed: int, planned: Sequence[Planned], grid_size: int) -> SeedScore:
    """The chosen grid point of one architecture, setting and seed, or why there is none."""
    results = {trial: record.result for trial, record in planned if record is not None and record.result is not None}
    in_order = sorted((trial for trial, _ in planned), key=grid_order)
    chosen = choose([(trial, results[trial]) if trial in results else None for trial in in_order])
    if chosen is None or (len(planned) < grid_size and not solves(*chosen)):
        return SeedScore(seed=seed, missing=_why_missing(planned, grid_size))
    trial, result = chosen
    return SeedScore(
        seed=seed,
        score=result.score,
        key=next(record.key for other, record in planned if other == trial and record is not None),
        learning_rate=trial.learning_rate,
        weight_decay=trial.weight_decay,
        learning_curve_area=learning_curve_area(trial, result) if is_known(trial.setting) else None,
        solved_step=result.solved_step,
        diverged=sum(result.status == "diverged" for result in results.values()),
        units=Units(result.numerators, result.denominators),
    )


def _why_missing(planned: Sequence[Planned], grid_size: int) -> str:
    counts = {"failed": 0, "running": 0, "not run": grid_size - len(planned)}
    errors = []
    for _, record in planned:
        if record is None:
            counts["not run"] += 1
        elif record.result is None:
            counts["failed" if record.status == "failed" else "running"] += 1
            errors += (record.error or "").splitlines()[:1]
    parts = [f"{number} of {grid_size} trials {what}" for what, number in counts.items() if number]
    return ", ".join(parts) + (f" ({errors[0]})" if errors else "")


def learning_curve(trial: Trial, result: TrialResult) -> list[tuple[int, float]]:
    """Step and score on the selection split, from chance at step 0 to the last planned step.

    After an early stop the last value holds, after divergence chance does.
    """
    chance = trial.setting.chance
    curve = [(0, chance), *((point.step, metric(trial, point.metrics)) for point in result.curve)]
    if result.status == "diverged":
        curve.append((max(result.steps, curve[-1][0]), chance))
    curve.append((max(trial.num_steps, curve[-1][0]), curve[-1][1]))
    return curve


def learning_curve_area(trial: Trial, result: TrialResult) -> float:
    """Mean of :func:`learning_curve` over the planned steps, by trapezoids, in [0, 1]."""
    steps, values = zip(*learning_curve(trial, result), strict=True)
    return float(np.trapezoid(values, steps) / steps[-1])


def _architecture_score(
    architecture: Architecture,
    chosen: Mapping[Task, tuple[SeedScore, ...]],
    settings: Mapping[str, Sequence[Task]],
    samples: Mapping[Task, Floats],
    costs: Costs,
) -> ArchitectureScore:
    def interval(drawn: Floats | None) -> Interval | None:
        return None if drawn is None else percentile_interval(drawn)

    tasks = []
    for task, of_task in settings.items():
        scored = tuple(SettingScore(setting, chosen[setting], interval(samples.get(setting))) for setting in of_task)
        drawn = _mean([samples[setting] for setting in of_task if setting in samples])
        tasks.append(TaskScore(task, scored, interval(drawn), drawn))
    drawn = _mean([task.samples for task in tasks if task.samples is not None])
    return ArchitectureScore(architecture, tuple(tasks), interval(drawn), drawn, costs)


def _mean(samples: Sequence[Floats]) -> Floats | None:
    return np.mean(samples, axis=0) if samples else None


def _costs(reference: Trial, planned: Sequence[Planned]) -> Costs:
    """Costs at the reference setting: where layers or task are not available those that were stored, if any."""
    if is_available(reference.architecture) and is_known(reference.setting):
        return reference.costs
    for trial, record in planned:
        same = (trial.architecture, trial.setting, trial.dim) == (reference.architecture, reference.setting, reference.dim)
        if same and record is not None and "costs" in record.provenance:
            return Costs(**record.provenance["costs"])
    return Costs(num_params=None, state_size=None, flops=None)
