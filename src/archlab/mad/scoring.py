"""Scores with intervals from the records of trials.

The score of a setting for one seed is that of the grid point that was chosen on the selection split, see
:mod:`archlab.mad.selection`, read on the test split. A setting's score is the mean over seeds, a task's the mean over
its settings, the MAD score the mean over the tasks of MAD (arXiv 2403.17844, sec. 3). What is missing is named and never
averaged away in silence: an incomplete score is marked as partial, with the number of settings that it has.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from itertools import chain
from math import isfinite

import numpy as np

from archlab.architectures import Architecture
from archlab.architectures.stored import is_available
from archlab.errors import ArchlabError
from archlab.mad.architecture_score import ArchitectureScore, SeedScore, SettingScore, TaskScore
from archlab.mad.bootstrap import Floats, Interval, Units, bootstrap_settings, percentile_interval
from archlab.mad.comparison import differences_to_best
from archlab.mad.recipe import by_level
from archlab.mad.scores import Scores
from archlab.mad.selection import choose, grid_groups, solves
from archlab.mad.spending import spending
from archlab.mad.store import OutcomeRecord
from archlab.mad.trial import AnyResult, Costs, Details, Kind, Trial
from archlab.tasks import Task
from archlab.tasks.registry import counted, task_order
from archlab.tasks.stored import is_known

Planned = tuple[Trial, OutcomeRecord | None]
Cell = tuple[Architecture, Task, int]
"""Architecture, setting and seed."""
ReadDetails = Callable[[Sequence[OutcomeRecord]], Mapping[str, Details]]
"""Gives the details of records by their keys; those that cannot be read are left out."""
_DETAILED = 1000
"""Results whose details are read at once."""


def score(
    planned: Mapping[Trial, OutcomeRecord | None] | Iterable[Planned],
    read: ReadDetails | None = None,
    *,
    protocol: str | None = None,
    resamples: int = 1000,
) -> Scores:
    """Score the trials of a plan, each with its record; layers and tasks that are not available as a store describes them.

    What is missing is named in the scores. ``read`` gives the details of chosen grid points; by default the records are whole.
    Intervals are from ``resamples`` bootstrap samples. Refuses an empty plan, and a setting that is trained under more than one
    condition.
    """
    planned = list(dict(planned).items())
    groups = grid_groups(planned)
    if not groups:
        raise ArchlabError("there is nothing to score: run a protocol first, for example archlab run transformer++")
    kinds = list(dict.fromkeys(kind for kind, _ in groups))
    _check_conditions(kinds)
    grids: dict[Task, set[tuple[float, float]]] = defaultdict(set)
    seeds: dict[Task, set[int]] = defaultdict(set)
    for (kind, seed), group in groups.items():
        grids[kind.setting].update(trial.grid_point for trial, _ in group)
        seeds[kind.setting].add(seed)
    names = list(dict.fromkeys(kind.architecture for kind in kinds))
    cells: dict[Cell, list[Planned]] = {(kind.architecture, kind.setting, seed): group for (kind, seed), group in groups.items()}
    asked = [(name, setting, seed) for name in names for setting in grids for seed in sorted(seeds[setting])]
    scored = _seed_scores({cell: (cells.get(cell, []), len(grids[cell[1]])) for cell in asked}, read or _details_of_whole)
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
        kinds,
        key=lambda one: (not is_known(one.setting), task_order(one.setting.name), one.setting.length, one.setting.vocab_size),
    )
    costs = _stored_costs(planned)
    ranked = [
        _architecture_score(name, chosen[name], settings, own, costs.get(kind) or _computed_costs(kind))
        for name, own in zip(chosen, samples, strict=True)
        for kind in [replace(reference, architecture=name)]
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
        spending=spending((_ended(group) for group in groups.values()), costs),
        records=tuple(record for _, record in planned if record is not None),
        differences=(),
    )
    return replace(found, differences=tuple(differences_to_best(found)))


def _check_conditions(kinds: Sequence[Kind]) -> None:
    """Refuse to mix: a setting is trained with one recipe, at one width, on one kind of device."""
    seen: dict[Task, Kind] = {}
    for kind in kinds:
        first = seen.setdefault(kind.setting, kind)
        if (first.dim, first.device, first.recipe) != (kind.dim, kind.device, kind.recipe):
            a, b = (
                {"dim": one.dim, "device": one.device} | {f"recipe.{name}": value for name, value in asdict(one.recipe).items()}
                for one in (first, kind)
            )
            differing = ", ".join(f"{name}={a[name]} and {name}={b[name]}" for name in a if a[name] != b[name])
            raise ArchlabError(
                f"{kind.setting} was trained under different conditions ({differing}): score one protocol at a time"
            )


def _seed_scores(
    cells: Mapping[Cell, tuple[Sequence[Planned], int]],
    read: ReadDetails,
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
        for key, details in read(records[start : start + _DETAILED]).items():
            cell, record = chosen[key]
            diverged = sum(other is not None and other.status == "diverged" for _, other in cells[cell][0])
            found[cell] = _seed_score(record, details, diverged)
    return found


def _choose(group: Sequence[Planned], grid_size: int) -> OutcomeRecord | None:
    """The record of the chosen grid point of one architecture, setting and seed, or None if another may still be chosen."""
    chosen = choose([None if result is None else (trial, result) for trial, result in _ended(group)])
    if chosen is None or (len(group) < grid_size and not solves(*chosen)):
        return None
    return next(record for trial, record in group if trial is chosen[0])


def _ended(group: Sequence[Planned]) -> list[tuple[Trial, AnyResult | None]]:
    return [(trial, None if record is None else record.result) for trial, record in group]


def _details_of_whole(records: Sequence[OutcomeRecord]) -> dict[str, Details]:
    return {record.key: Details.of(record.job, record.result) for record in records if record.result is not None}


def _seed_score(record: OutcomeRecord, details: Details, diverged: int) -> SeedScore:
    trial, result = record.job, record.result
    assert result is not None
    curve: Floats = np.fromiter(chain.from_iterable(learning_curve(trial, result, details.curve)), float).reshape(-1, 2)
    units = Units(details.numerators, details.denominators)
    return SeedScore(
        seed=trial.seed,
        score=units.score,
        key=record.key,
        learning_rate=trial.learning_rate,
        weight_decay=trial.weight_decay,
        learning_curve_area=_area(curve) if is_known(trial.setting) else None,
        solved_step=result.solved_step,
        diverged=diverged,
        by_length=details.by_length,
        by_level=_by_level(trial.recipe.levels, units),
        units=units,
        curve=curve,
    )


def _area(curve: Floats) -> float:
    """Area under a learning curve over its length, by the trapezoidal rule."""
    steps, scores = curve.T
    return float(((steps[1:] - steps[:-1]) * (scores[1:] + scores[:-1]) / 2.0).sum() / steps[-1])


def _by_level(levels: tuple[int, ...], units: Units) -> tuple[tuple[int, float], ...]:
    """Level and score of each of a recipe's levels; without levels none."""
    parts = map(Units, by_level(levels, units.numerators), by_level(levels, units.denominators))
    return tuple((level, part.score) for level, part in zip(levels, parts, strict=False))


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


def learning_curve(trial: Trial, result: AnyResult, evaluated: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Step and score on the selection split, from chance at step 0 to the last planned step.

    What is not finite is chance. After an early stop the last value holds, after divergence chance does.
    """
    chance = trial.setting.chance
    curve = [(0, chance), *((step, value if isfinite(value) else chance) for step, value in evaluated)]
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


def _stored_costs(planned: Sequence[Planned]) -> dict[Kind, Costs]:
    """The costs of kinds of trials as the records have them."""
    found: dict[Kind, Costs] = {}
    for trial, record in planned:
        if record is not None and trial.kind not in found and "costs" in record.provenance:
            found[trial.kind] = Costs(*(record.provenance["costs"].get(each.name) for each in fields(Costs)))
    return found


def _computed_costs(kind: Kind) -> Costs:
    """Costs of a kind of trials of which the store has none; unknown where layers or task are not available, or fail by now."""
    if is_available(kind.architecture) and is_known(kind.setting):
        with suppress(Exception, SystemExit):  # layers may be someone else's
            return kind.costs
    return Costs(num_params=None, state_size=None, flops=None)
