"""The runs of a store that train language models, as `archlab runs` lists them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from archlab.jobs.attempts import by_cause, ending
from archlab.scaling.store import StudyStore, read_plan
from archlab.store.opened import Location
from archlab.store.runs import Lines


def study_runs(location: Location, unreadable: Lines) -> list[dict[str, Any]]:
    """The plans that a store has been asked to train, oldest first, a row each.

    A row has ``number``, ``started`` (ISO 8601), ``plan`` (its file), ``architectures``, ``budgets`` (FLOPs), ``training_runs``
    and how many of these are ``done``; how the latest attempt ended, where and with which versions, and ``failures`` by their
    causes, as `Results.runs` has them. ``unreadable`` takes a line for everything that this archlab cannot read.
    """
    with StudyStore(location, create=False) as store:
        runs = store.runs(read_plan, unreadable=unreadable)
        records = {record.key: record for record in store.outcomes(unreadable=unreadable)} if runs else {}
        attempts = store.attempts()
    rows = []
    for run in runs:
        name, trials = run.plan
        found = [records[trial.key] for trial in trials if trial.key in records]
        started = None if run.started is None else datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds")
        rows.append(
            {
                "number": run.number,
                "started": started,
                "plan": name,
                "architectures": list(dict.fromkeys(trial.run.label for trial in trials)),
                "budgets": sorted({trial.run.budget for trial in trials}),
                "training_runs": len(trials),
                "done": sum(record.result is not None for record in found),
                **ending(attempts.get(run.number)),
                "failures": by_cause(record.reason for record in found if record.status == "failed"),
            }
        )
    return rows
