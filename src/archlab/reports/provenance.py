"""The sources of the numbers of a report: recipes, machines and versions, trials."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from archlab.mad.results import trial_row
from archlab.mad.scores import Scores
from archlab.mad.selection import metric
from archlab.mad.store import Record

MAX_TRIALS = 500
"""Above this, the list keeps so many of the trials that did not finish, then of those that gave a score: the page stays small."""
_ENVIRONMENT = ("host", "cpu", "gpu", "platform", "python", "torch", "numpy", "archlab", "fla", "commit")


Provenance = Mapping[str, Any]
"""Machine, versions and times of a result: :func:`archlab.store.provenance.provenance`."""


def environments(provenances: Iterable[Provenance]) -> list[dict[str, Any]]:
    """The machines and sets of versions, numbered from 1, with the number of trials that ran there."""
    counts = Counter(_environment(one) for one in provenances if one)
    return [
        {"number": number, "trials": trials, **dict(zip(_ENVIRONMENT, values, strict=True))}
        for number, (values, trials) in enumerate(counts.items(), start=1)
    ]


def recipes(scores: Scores) -> dict[str, Any]:
    """The training of each task: recipe fields that all tasks share, and those that differ."""
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in scores.records:
        by_task[record.job.setting.name].append(record)
    fields = {task: asdict(records[0].job.recipe) for task, records in by_task.items()}
    distinct = {
        name: {task: values[name] for task, values in fields.items()}
        for name in next(iter(fields.values()), {})
        if len({values[name] for values in fields.values()}) > 1
    }
    in_table = {"steps", "epochs"}
    return {
        "shared": {k: v for k, v in next(iter(fields.values()), {}).items() if k not in distinct and k not in in_table},
        "differ": bool(distinct.keys() - in_table),
        "tasks": [
            {
                "task": task,
                "settings": len({r.job.setting for r in by_task[task]}),
                "first": by_task[task][0].job.setting.knobs(),
                "steps": sorted({r.job.num_steps for r in by_task[task]}),
                "learning_rates": sorted({r.job.learning_rate for r in by_task[task]}),
                "weight_decays": sorted({r.job.weight_decay for r in by_task[task]}),
                "seeds": sorted({r.job.seed for r in by_task[task]}),
                "own": {name: values[task] for name, values in distinct.items() if name not in in_table},
            }
            for task in scores.tasks
            if task in by_task
        ],
    }


def trial_rows(scores: Scores) -> tuple[list[dict[str, Any]], int]:
    """A row for each trial, and the number of trials that the list leaves out."""
    labels = {str(architecture.architecture): architecture.label for architecture in scores.architectures}
    chosen = {
        seed.key
        for architecture in scores.architectures
        for task in architecture.tasks
        for setting in task.settings
        for seed in setting.seeds
    }
    found = environments(record.provenance for record in scores.records)
    numbers = {tuple(e[name] for name in _ENVIRONMENT): e["number"] for e in found}
    listed = list(scores.records)
    if len(listed) > MAX_TRIALS:
        listed = [record for record in listed if record.key in chosen or record.status != "finished"]
        listed = sorted(listed, key=lambda record: record.status == "finished")[:MAX_TRIALS]
    rows = [
        trial_row(record, labels)
        | {
            "program": record.result.program if record.result else None,
            "selection": metric(record.job, record.result.selected) if record.result else None,
            "chosen": record.key in chosen,
            "seconds": record.result.wall_seconds if record.result else None,
            "environment": numbers.get(_environment(record.provenance)),
            "finished": (record.finished or "")[:16].replace("T", " "),
        }
        for record in listed
    ]
    return rows, len(scores.records) - len(listed)


def mixed_versions(provenances: Iterable[Provenance]) -> list[str]:
    """A warning if trials ran with different versions of the code or of torch."""
    versions = {(one.get("archlab"), one.get("torch"), one.get("commit")) for one in provenances}
    if len(versions) < 2:
        return []
    return [f"The trials ran with {len(versions)} different versions of the code or of torch: see the provenance."]


def _environment(provenance: Provenance) -> tuple[Any, ...]:
    return tuple(provenance.get(name) for name in _ENVIRONMENT)
