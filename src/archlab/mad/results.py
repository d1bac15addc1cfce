"""A store of trials opened for reading: its runs, trials and scores as values and data frames."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError, unknown
from archlab.fields import check_value, checked
from archlab.jobs.attempts import by_cause, ending
from archlab.mad.plan import Plan, score_plan
from archlab.mad.scores import Scores
from archlab.mad.selection import grid_groups
from archlab.mad.spending import settled
from archlab.mad.store import Record, TrialStore
from archlab.store.record import Status
from archlab.store.runs import Run

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """The results in a store. A context manager; reading changes nothing."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """Open the store at a path or database URL; refuses a place without one."""
        self._store = TrialStore(location, create=False)
        self.where = self._store.where
        self.unreadable: dict[str, str] = {}
        """One line for every row and run that this archlab could not read so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def runs(self) -> "pd.DataFrame":
        """One row for each run, oldest first: ``number``, ``label``, ``started``, ``protocol``, ``architectures``, ``tasks``,
        ``seeds``, ``trials``, and how many of these are ``done``. A trial that a race left out counts as done.

        The columns ``ended``, ``host``, ``archlab``, ``torch`` and ``python`` say how the latest attempt at the run ended, where,
        and with which versions; they are None for a run of an earlier version of archlab. ``failures`` counts trials that failed
        by their causes, the most frequent first; causes that differ in their numbers only are one.
        """
        import pandas as pd

        results, errors = {}, {}
        for record in self._store.outcomes(unreadable=self.unreadable):
            if record.result is not None:
                results[record.job] = record.result
            elif record.status == "failed":
                errors[record.job] = record.reason
        attempts = self._store.attempts()
        rows = []
        for run, plan in self._remembered():
            started = None if run.started is None else datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds")
            labels, tasks, seeds = [a.label for a in plan.architectures], list(plan.protocol.tasks), list(plan.protocol.seeds)
            trials = plan.trials()
            done = len(settled(grid_groups((trial, results.get(trial)) for trial in trials).values()))
            failures = by_cause(errors[trial] for trial in trials if trial in errors and trial not in results)
            plain = (run.number, run.label, started, plan.protocol.name, labels, tasks, seeds, len(trials), done)
            rows.append((*plain, *ending(attempts.get(run.number)).values(), failures))
        columns = ["number", "label", "started", "protocol", "architectures", "tasks", "seeds", "trials", "done"]
        columns += ["ended", "host", "archlab", "torch", "python", "failures"]
        frame = pd.DataFrame(rows, columns=columns, dtype=object)  # None stays None, of runs of which less is known
        return frame.astype({"number": int, "trials": int, "done": int})

    @checked
    def trials(
        self,
        *,
        run: int | str | None = None,
        architectures: Collection[str] | None = None,
        tasks: Sequence[str] | None = None,
        status: str | None = None,
    ) -> "pd.DataFrame":
        """One row for each stored trial, oldest first.

        Args:
            run: only the trials of this run: its number or label.
            architectures: only those of these architectures, by label or spec.
            tasks: only those of these tasks, by name or short name.
            status: only those with this status.

        Raises:
            ArchlabError: the store has no such run, architecture or task, or there is no such status.
        """
        import pandas as pd

        check_value("status", status, Status | None)
        planned = None if run is None else set(self.plan(run).trials())
        labels = _labels(self._remembered())
        found = [
            (record.job.setting.short, trial_row(record, labels))
            for record in self._store.scan(unreadable=self.unreadable)
            if planned is None or record.job in planned
        ]
        specs = {row["spec"] for _, row in found}
        known = {row["task"]: short for short, row in found}
        for name in architectures or ():
            if name not in specs | {labels.get(spec) for spec in specs}:
                raise unknown(f"architecture in store {self.where}:", name, [labels.get(spec, spec) for spec in specs])
        for name in tasks or ():
            if name not in (*known, *known.values()):
                raise unknown(f"task in store {self.where}:", name, known)
        rows = [
            row
            for short, row in found
            if (architectures is None or {row["spec"], row["architecture"]} & {*architectures})
            and (tasks is None or {row["task"], short} & {*tasks})
            and status in (None, row["status"])
        ]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    @checked
    def scores(
        self,
        run: int | str | None = None,
        *,
        protocol: str | None = None,
        architectures: Collection[str] | None = None,
        tasks: Sequence[str] | None = None,
        settings: str = "all",
    ) -> Scores:
        """The scores of a run; what is missing is marked.

        Args:
            run: its number or label; by default the widest run that is comparable with the latest one, with the architectures
                of all runs comparable with it.
            protocol: by default, the latest run of this protocol.
            architectures: only these, by label or spec.
            tasks: only these.
            settings: ``"base"`` for each task's base setting only.

        Raises:
            ArchlabError: the store has no such run, or the run has no such architecture or task.
        """
        plan = self.plan(run, protocol)
        if tasks is not None:
            plan = replace(plan, protocol=plan.protocol.with_tasks(tasks))
        plan = replace(plan, protocol=plan.protocol.with_settings(settings))
        if architectures is not None:
            plan = replace(plan, architectures=tuple(_chosen(plan, name) for name in architectures))
        return score_plan(self._store, plan, self.unreadable)

    @checked
    def plan(self, run: int | str | None = None, protocol: str | None = None) -> Plan:
        """The plan of a run, chosen as :meth:`scores` says.

        Raises:
            ArchlabError: the store has no such run.
        """
        remembered = self._remembered()
        if run is not None:
            for noted, plan in reversed(remembered):
                if run in (noted.number, str(noted.number)) or (noted.label and run == noted.label):
                    if protocol not in (None, plan.protocol.name):
                        raise ArchlabError(f"store {self.where}: run {run} is of protocol {plan.protocol.name}, not {protocol}")
                    return plan
            names = [name for noted, _ in remembered for name in (str(noted.number), noted.label) if name]
            raise ArchlabError(f"store {self.where}: {unknown('run', str(run), names)}; `archlab runs` lists them")
        known = sorted({plan.protocol.name for _, plan in remembered})
        plans = [plan for _, plan in remembered if protocol in (None, plan.protocol.name)]
        if not plans and protocol is not None and known:
            raise ArchlabError(f"store {self.where} has no run of protocol {protocol!r}, only of {', '.join(known)}")
        if not plans:
            reason = f"`archlab run SPEC --store {self.where}` adds one"
            if self.unreadable:
                reason = next(iter(self.unreadable.values()))
            raise ArchlabError(f"store {self.where} has no runs that can be shown: {reason}")
        latest = plans[-1]
        wider = [plan for plan in plans if plan.device == latest.device and plan.protocol.covers(latest.protocol)]
        widest = max(reversed(wider), key=lambda plan: plan.protocol.num_trials)
        comparable = [plan for plan in plans if plan.device == widest.device and widest.protocol.covers(plan.protocol)]
        labels = _labels(remembered)
        architectures = dict.fromkeys(a for plan in comparable for a in plan.architectures)
        return replace(widest, architectures=tuple(a.named(labels.get(str(a))) for a in architectures))

    def _repr_html_(self) -> str:
        """The runs, as notebooks show them."""
        return str(self.runs().to_html(index=False))

    def _remembered(self) -> list[tuple[Run, Plan]]:
        """The runs and their plans."""
        return [(run, run.plan) for run in self._store.runs(Plan.from_dict, unreadable=self.unreadable)]


def _labels(remembered: Sequence[tuple[Run, Plan]]) -> dict[str, str]:
    """The names of architectures by spec: the latest of each; one that a later run gave to another spec is that one's alone.

    A name of the catalogue may stand for several specs, for a protocol sets knobs that it leaves open.
    """
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for _, plan in remembered:
        for value in plan.architectures:
            if value.name:
                names[str(value)] = value.name
                owners[value.name] = str(value)
    return {spec: name for spec, name in names.items() if name in CATALOGUE or owners[name] == spec}


def _chosen(plan: Plan, name: str) -> Any:
    for architecture in plan.architectures:
        if name in (architecture.label, str(architecture)):
            return architecture
    raise unknown("architecture of the run:", name, [architecture.label for architecture in plan.architectures])


_COLUMNS = (
    "key", "architecture", "spec", "task", "setting", "dim", "learning_rate", "weight_decay", "seed", "device", "status",
    "score", "loss", "steps", "cpu_seconds", "finished", "host", "archlab", "error",
)  # fmt: skip


def trial_row(record: Record, labels: Mapping[str, str]) -> dict[str, Any]:
    """A stored trial as a row of a table; architectures have their ``labels`` by spec."""
    trial, result = record.job, record.result
    spec = str(trial.architecture)
    return {
        "key": record.key,
        "architecture": labels.get(spec, spec),
        "spec": spec,
        "task": trial.setting.name,
        "setting": str(trial.setting),
        **{name: getattr(trial, name) for name in ("dim", "learning_rate", "weight_decay", "seed", "device")},
        "status": record.status,
        "score": None if result is None else result.score,
        "loss": None if result is None else result.test.loss,
        "steps": None if result is None else result.steps,
        "cpu_seconds": None if result is None else result.cpu_seconds,
        "finished": record.finished,
        **{name: record.provenance.get(name) for name in ("host", "archlab")},
        "error": record.reason or None,
    }
