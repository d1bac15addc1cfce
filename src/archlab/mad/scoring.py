"""Scores with intervals from the records of trials.

The score of a setting for one seed is that of the grid point that was chosen on the selection split, see
:mod:`archlab.mad.selection`, read on the test split. A setting's score is the mean over seeds, a task's the mean over
its settings, the MAD score the mean over the tasks of MAD (arXiv 2403.17844, sec. 3). What is missing is named and never
averaged away in silence: an incomplete score is marked as partial, with the number of settings that it has.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from archlab.architectures import Architecture
from archlab.architectures.stored import is_available
from archlab.errors import ArchlabError
from archlab.mad.bootstrap import Floats, Interval, Units, bootstrap_settings, percentile_interval
from archlab.mad.comparison import differences_to_best
from archlab.mad.recipe import by_level
from archlab.mad.scores import ArchitectureScore, Scores, SeedScore, SettingScore, TaskScore
from archlab.mad.selection import choose, grid_order, metric, solves
from archlab.mad.spending import spending
from archlab.mad.store import OutcomeRecord
from archlab.mad.trial import AnyResult, Costs, CurvePoint, Details, Trial, TrialResult
from archlab.tasks import Task
from archlab.tasks.registry import counted, task_order
from archlab.tasks.stored import is_known

Planned = tuple[Trial, OutcomeRecord | None]
Cell = tuple[Architecture, Task, int]
"""Architecture, setting and seed."""
_DETAILED = 1000
"""Results whose details are read at once."""


def score(
    planned: Iterable[Planned],
    read: Callable[[Sequence[OutcomeRecord]], Iterable[OutcomeRecord]] | None = None,
    *,
    protocol: str | None = None,
    resamples: int = 1000,
) -> Scores:
    """Score the trials of a plan, each with its record; layers and tasks that are not available as a store describes them.

    What is missing is named in the scores. ``read`` gives the records of chosen grid points with their details; by default the
    records are whole. Intervals are from ``resamples`` bootstrap samples. Refuses an empty plan, and a setting that is trained
    under more than one condition.
    """
    planned = list(dict(planned).items())
    if not planned:
        raise ArchlabError("there is nothing to score: run a protocol first, for example archlab run transformer++")
    _check_conditions(planned)
    cells: dict[Cell, list[Planned]] = defaultdict(list)
    grids: dict[Task, set[tuple[float, float]]] = defaultdict(set)
    seeds: dict[Task, set[int]] = defaultdict(set)
    for trial, record in planned:
        cells[trial.architecture, trial.setting, trial.seed].append((trial, record))
        grids[trial.setting].add(trial.grid_point)
        seeds[trial.setting].add(trial.seed)
    names = list(dict.fromkeys(trial.architecture for trial, _ in planned))
    asked = [(name, setting, seed) for name in names for setting in grids for seed in sorted(seeds[setting])]
    scored = _seed_scores({cell: (cells[cell], len(grids[cell[1]])) for cell in asked}, read or (lambda records: records))
    tasks = sorted({setting.name for setting in grids}, key=task_order)
    settings = {task: [setting for setting in grids if setting.name == task] for task in tasks}
    chosen = {
        name: {setting: tuple(scored[name, setting, seed] for seed in sorted(seeds[setting])) for setting in grids}
        for name in names
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
    seen: dict[Task, Trial] = {}
    for trial, _ in planned:
        first = seen.setdefault(trial.setting, trial)
        if (first.dim, first.device, first.recipe) != (trial.dim, trial.device, trial.recipe):
            a, b = (
                {"dim": one.dim, "device": one.device} | {f"recipe.{name}": value for name, value in asdict(one.recipe).items()}
                for one in (first, trial)
            )
            differing = ", ".join(f"{name}={a[name]} and {name}={b[name]}" for name in a if a[name] != b[name])
            raise ArchlabError(
                f"{trial.setting} was trained under different conditions ({differing}): score one protocol at a time"
            )


def _seed_scores(
    cells: Mapping[Cell, tuple[Sequence[Planned], int]],
    read: Callable[[Sequence[OutcomeRecord]], Iterable[OutcomeRecord]],
) -> dict[Cell, SeedScore]:
    """The score of each cell, from its trials and the number of its grid points: that of the chosen one, or why there is none."""
    found: dict[Cell, SeedScore] = {}
    chosen: dict[str, tuple[Cell, OutcomeRecord]] = {}
    for cell, (planned, grid_size) in cells.items():
        record = _choose(planned, grid_size)
        if record is None:
            found[cell] = SeedScore(seed=cell[2], missing=_why_missing(planned, grid_size))
        else:
            fix = f"`archlab trials delete {record.key}`, then run again"
            found[cell] = SeedScore(seed=cell[2], missing=f"the chosen result cannot be read: {fix}")
            chosen[record.key] = cell, record
    records = [record for _, record in chosen.values()]
    for start in range(0, len(records), _DETAILED):
        for detailed in read(records[start : start + _DETAILED]):
            cell, record = chosen[detailed.key]
            diverged = sum(other is not None and other.status == "diverged" for _, other in cells[cell][0])
            found[cell] = _seed_score(record, detailed.result, diverged)
    return found


def _choose(planned: Sequence[Planned], grid_size: int) -> OutcomeRecord | None:
    """The record of the chosen grid point of one architecture, setting and seed, or None if another may still be chosen."""
    in_order = sorted(planned, key=lambda one: grid_order(one[0]))
    results = [None if record is None or record.result is None else (trial, record.result) for trial, record in in_order]
    chosen = choose(results)
    if chosen is None or (len(planned) < grid_size and not solves(*chosen)):
        return None
    return next(record for trial, record in in_order if trial is chosen[0])


def _seed_score(record: OutcomeRecord, details: Details | TrialResult | None, diverged: int) -> SeedScore:
    trial, result = record.job, record.result
    assert result is not None
    assert details is not None
    curve: Floats = np.array(learning_curve(trial, result, details.curve))
    units = Units(details.numerators, details.denominators)
    return SeedScore(
        seed=trial.seed,
        score=units.score,
        key=record.key,
        learning_rate=trial.learning_rate,
        weight_decay=trial.weight_decay,
        learning_curve_area=float(np.trapezoid(curve[:, 1], curve[:, 0]) / curve[-1, 0]) if is_known(trial.setting) else None,
        solved_step=result.solved_step,
        diverged=diverged,
        by_length=details.by_length,
        by_level=tuple((level, part.score) for level, part in _levels(trial, units)),
        units=units,
        curve=curve,
    )


def _levels(trial: Trial, units: Units) -> list[tuple[int, Units]]:
    """The recipe's levels, and the test units that are drawn from each."""
    levels = trial.recipe.levels
    parts = (by_level(trial.setting, levels, array) for array in (units.numerators, units.denominators))
    return [(level, Units(above, below)) for level, (_, above), (_, below) in zip(levels, *parts, strict=False)]


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


def learning_curve(trial: Trial, result: AnyResult, points: Sequence[CurvePoint]) -> list[tuple[int, float]]:
    """Step and score on the selection split, from chance at step 0 to the last planned step.

    After an early stop the last value holds, after divergence chance does.
    """
    chance = trial.setting.chance
    curve = [(0, chance), *((point.step, metric(trial, point.metrics)) for point in points)]
    if result.status == "diverged":
        curve.append((max(result.steps, curve[-1][0]), chance))
    curve.append((max(trial.num_steps, curve[-1][0]), curve[-1][1]))
    return curve


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
    names = counted([task.task for task in tasks])
    drawn = _mean([task.samples for task in tasks if task.samples is not None and task.task in names])
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
