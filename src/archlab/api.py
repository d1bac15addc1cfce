"""The functions that the command line and notebooks call: run a protocol, foresee what a run takes, search."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from archlab.architectures import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.fields import Count, Natural, Positive, SeedCount, Workers, above, at_most, checked, not_empty
from archlab.jobs import scheduler
from archlab.jobs.attempts import noted
from archlab.jobs.events import Listener, RunSummary
from archlab.jobs.executor import Executor, Work, make_executor
from archlab.jobs.pull import Elsewhere, submit
from archlab.machine import Device
from archlab.mad.memory import check_memory, fitting_population, worker_bytes
from archlab.mad.models import Keep, train_and_keep
from archlab.mad.plan import Plan, make_plan, score_plan
from archlab.mad.preview import Preview, check_can_compute, preview_plan
from archlab.mad.protocol import Protocol
from archlab.mad.racing import Race, Racing
from archlab.mad.scores import Scores
from archlab.mad.store import OutcomeRecord, Recomputation, TrialStore
from archlab.mad.study import read_specs
from archlab.mad.submission import describe as describe_trials
from archlab.mad.train import train_together
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.searching.result import Search
from archlab.searching.search import Advance, make_search_plan, run_search
from archlab.store.database import NoStoreError
from archlab.store.kept import folder_beside
from archlab.stores import present_key

if TYPE_CHECKING:
    import pandas as pd


Candidates = str | Architecture | Sequence[str | Architecture]
Specs = Candidates | os.PathLike[str]
ProtocolLike = str | os.PathLike[str] | Protocol
Location = str | os.PathLike[str]
Fraction = Annotated[float, above(0), at_most(1)]


@checked
def run(
    specs: Specs,
    protocol: ProtocolLike | None = None,
    *,
    suite: str | None = None,
    tasks: Sequence[str] | None = None,
    seeds: SeedCount | Sequence[int] | None = None,
    store: Location = "archlab.db",
    label: str = "",
    race: Race = "exact",
    device: Device = "cpu",
    executor: str = "local",
    workers: Workers | None = None,
    time_limit: Positive | None = None,
    population: Count | None = None,
    priority: int = 0,
    keep: Keep = "none",
    listeners: Sequence[Listener] | None = None,
) -> Scores:
    """Train architectures on the tasks of a protocol, and score them.

    Every finished trial is in the store at once: after an interruption the same call does the rest, and no stored result is
    computed again.

    Args:
        specs: one or several architectures: catalogue names, specs or values; or the path of a study's YAML file, see
            :mod:`archlab.mad.study`.
        protocol: a protocol of the package by name, the path of a YAML file, or a value; by default ``"quick"``, or what the
            study says.
        suite: the group of the protocol's tasks: ``"mad"`` (the default), ``"recall"``, ``"state"`` or ``"all"``.
        tasks: only these tasks of the suite.
        seeds: how many seeds, or which; by default the protocol's.
        store: where results are and go: a path or a database URL.
        label: a name for the run; not a number, by which runs are found too.
        race: which grid points need not be trained to the end, see :mod:`archlab.mad.racing`.
        device: where to train.
        executor: where workers run: ``"local"``, on this machine; ``"ray"`` or ``"ray:ADDRESS"``, on a Ray cluster; or
            ``"workers"``, where `archlab work` runs on this store.
        workers: number of workers; by default one a core, or one a GPU.
        time_limit: minutes that a trial may take; by default twenty times the predicted time, and at least 15.
        population: number of trials that a worker trains together; by default as many as pay and fit.
        priority: with ``"workers"``: those of the highest are computed first.
        keep: ``"weights"`` keeps the weights that each computed trial scores, in a folder beside the store;
            :func:`archlab.load_model` reads them. It changes no result; a stored trial is not computed again for it.
        listeners: called with every event of :mod:`archlab.jobs.events`; by default a live view on standard error.

    Raises:
        ArchlabError: something cannot be met as asked; nothing has been computed or written.
        KeyboardInterrupt: after Ctrl-C; what is finished is in the store.
    """
    plan = plan_of(specs, protocol, suite=suite, tasks=tasks, seeds=seeds, device=device)
    trials = plan.trials()
    if keep == "weights" and executor == "workers":
        raise ArchlabError("keep='weights' (--keep): workers elsewhere keep no weights of trials: choose executor local or ray")
    with ExitStack() as stack:
        work = stack.enter_context(_work(keep, store))
        made: Executor[Trial, Progress, TrialResult] = make_executor(
            work, workers, device=device, name=executor, submits=True, time_limit=time_limit
        )
        workplace = stack.enter_context(made)
        _check_label(store, label, plan)
        # To be computed, for the checks of memory; and every trial with its record, None if the store has none.
        left, known = _left(trials, store, race)
        together = population or 1
        if executor == "local":
            check_can_compute(left)
            together = population or fitting_population(left, workplace.num_workers)
            check_memory(left, workplace.num_workers, together)
        elif not isinstance(workplace, Elsewhere):
            workplace.memory = worker_bytes(left, together)
        with TrialStore(store) as results:
            number = results.remember_run(plan.to_dict(), label=label)
            policy = Racing(trials, race, together)
            reused = [] if policy.whole_results else [record for record in known.values() if record]
            with noted(results, number, executor, device) as attempt:
                options: dict[str, Any] = {
                    "policy": policy,
                    "listeners": [attempt, *default_listeners(listeners)],
                    "known": reused,
                }
                if isinstance(workplace, Elsewhere):
                    what = describe_trials(plan, race, population)
                    submit(trials, results, what, number=number, priority=priority, executor=workplace, **options)
                else:
                    scheduler.run(trials, results, workplace, **options)
            del policy, reused, options  # of a large run they keep as much as the scores need
            return score_plan(results, plan, {}, known)


@contextmanager
def _work(keep: Keep, store: Location) -> Iterator[Work[Trial, Progress, TrialResult]]:
    """The work that computes trials, with a folder for the weights that are to be kept."""
    if keep == "none":
        yield train_together
    else:
        with folder_beside(store, "models", "for the store, or --keep none") as models:
            yield partial(train_and_keep, models=models.resolve())


@checked
def search(
    space: Location,
    protocol: ProtocolLike | None = None,
    *,
    proposer: str = "guided",
    objectives: Sequence[str] = ("mad", "state"),
    evaluations: Count | None = None,
    rungs: Sequence[Location] = (),
    promote: Fraction = 0.5,
    suite: str | None = None,
    tasks: Sequence[str] | None = None,
    seeds: SeedCount | Sequence[int] | None = None,
    seed: Natural = 0,
    batch: Count = 4,
    store: Location = "archlab.db",
    label: str = "",
    race: Race = "exact",
    device: Device = "cpu",
    executor: str = "local",
    workers: Workers | None = None,
    listeners: Sequence[Listener] | None = None,
    on_advance: Callable[[Advance], None] | None = None,
) -> Search:
    """Search a space for architectures with high scores and low costs, and measure the winner again.

    Everything is in the store: after an interruption the same call continues, and gives the result that it would have given.

    Args:
        space: a space of the package by name, or the path of a YAML file, see :mod:`archlab.searching.space`.
        protocol: as in :func:`run`.
        proposer: ``"guided"``, ``"nsga2"``, ``"tpe"``, ``"random"`` or ``"exhaustive"``.
        objectives: ``"mad"``, tasks, and costs of :mod:`archlab.searching.costs`; the first score decides on the winner.
        evaluations: number of architectures; by default 24, or with the exhaustive proposer all.
        rungs: cheaper protocols that all go through first.
        promote: fraction that goes on from one rung to the next.
        suite: as in :func:`run`.
        tasks: as in :func:`run`.
        seeds: as in :func:`run`.
        seed: of the proposer.
        batch: architectures that are proposed at once; the number of workers changes no result.
        store: as in :func:`run`.
        label: a name for the run that the store remembers: the architectures of the last rung.
        race: as in :func:`run`.
        device: as in :func:`run`.
        executor: as in :func:`run`.
        workers: as in :func:`run`.
        listeners: as in :func:`run`.
        on_advance: called after every batch.

    Raises:
        ArchlabError: something cannot be met as asked; nothing has been computed or written.
        KeyboardInterrupt: after Ctrl-C; what is finished is in the store.
    """
    plan = make_search_plan(
        os.fspath(space),
        protocol,
        proposer=proposer,
        objectives=objectives,
        evaluations=evaluations,
        rungs=rungs,
        promote=promote,
        suite=suite,
        tasks=tasks,
        seeds=range(seeds) if isinstance(seeds, int) else seeds,
        seed=seed,
        batch=batch,
        device=device,
    )
    workplace: Executor[Trial, Progress, TrialResult] = make_executor(train_together, workers, device=device, name=executor)
    with workplace:
        _check_label(store, label, plan.to_dict())
        with TrialStore(store) as results:
            found = run_search(
                plan,
                results,
                workplace,
                race=race,
                listeners=default_listeners(listeners),
                on_advance=on_advance or (lambda _: None),
            )
            architectures = tuple(score.architecture for score in found.scores.architectures)
            results.remember_run(Plan(plan.protocol, architectures, device).to_dict() | {"search": plan.to_dict()}, label=label)
            return found


@checked
def rerun_trials(
    keys: Annotated[Sequence[str], not_empty],
    *,
    store: Location = "archlab.db",
    executor: str = "local",
    workers: Workers | None = None,
    time_limit: Positive | None = None,
    keep: Keep = "none",
    listeners: Sequence[Listener] | None = None,
) -> RunSummary:
    """Compute trials of a store again, by the present code. A result stays until its new one is stored; those being computed
    are left alone.

    Args:
        keys: keys of the trials, as :meth:`archlab.mad.results.Results.trials` gives them.
        store: where they are: a path or a database URL.
        executor: where workers run.
        workers: number of workers; by default one a core, or one a GPU.
        time_limit: as in :func:`run`.
        keep: as in :func:`run`.
        listeners: called with every event of :mod:`archlab.jobs.events`; by default a live view on standard error.

    Raises:
        ArchlabError: the store lacks one of the trials or cannot read it, a layer or a task is not available, or the trials ran
            on different kinds of device; nothing has been computed.
        KeyboardInterrupt: after Ctrl-C; what is finished is in the store.
    """
    with TrialStore(store, create=False) as results:
        records = results.records(keys)
        if lacking := set(keys) - {record.key for record in records}:
            raise ArchlabError(f"keys: the store has no trial {min(lacking)}: `archlab trials` lists them")
        trials = [record.job for record in records if record.status != "running"]
        for trial in trials:
            if present_key(trial) is None:
                raise ArchlabError(f"{trial}: a layer or the task is not available: name its file with --layers or --tasks-file")
        devices = {trial.device for trial in trials}
        if len(devices) > 1:
            raise ArchlabError(f"keys: trials of several devices, {' and '.join(sorted(devices))}: choose those of one")
        check_can_compute(trials)
        options: dict[str, Any] = {"device": min(devices, default="cpu"), "name": executor, "time_limit": time_limit}
        with (
            _work(keep, store) as work,
            TemporaryDirectory() as folder,
            Recomputation(Path(folder) / "again.db", results, records) as again,
            make_executor(work, workers, **options) as workplace,
        ):
            check_memory(trials, workplace.num_workers, 1)
            return scheduler.run(trials, again, workplace, policy=Racing(trials, "off"), listeners=default_listeners(listeners))


@checked
def preview(
    specs: Specs,
    protocol: ProtocolLike | None = None,
    *,
    suite: str | None = None,
    tasks: Sequence[str] | None = None,
    seeds: SeedCount | Sequence[int] | None = None,
    store: Location = "archlab.db",
    label: str = "",
    race: Race = "exact",
    device: Device = "cpu",
    executor: str = "local",
    workers: Workers | None = None,
    population: Count | None = None,
) -> Preview:
    """Foresee what :func:`run` would take with the same arguments: trials, FLOPs, seconds and memory. Writes nothing.

    Raises:
        ArchlabError: as :func:`run`.
    """
    plan = plan_of(specs, protocol, suite=suite, tasks=tasks, seeds=seeds, device=device)
    with make_executor(train_together, workers, device=device, name=executor, submits=True) as workplace:
        num_workers = workplace.num_workers or 1  # as if there were one elsewhere
    _check_label(store, label, plan)
    left, known = _left(plan.trials(), store, race)
    return preview_plan(plan, left, sum(record is not None for record in known.values()), num_workers, population)


@checked
def describe(spec: str | Architecture, *, dim: Count = 128, length: Count = 128, vocab_size: Count = 16) -> pd.DataFrame:
    """The costs of an architecture layer by layer, then in all: parameters, state and forward FLOPs, without building it.

    Args:
        spec: a catalogue name, a spec or a value.
        dim: width of the model.
        length: positions of a sequence, at which state and FLOPs are counted.
        vocab_size: size of the vocabulary, for embedding and unembedding.

    Raises:
        ArchlabError: the spec cannot be read, or a layer does not fit the width.
    """
    import pandas as pd

    from archlab.layers.external.check import check_accounting
    from archlab.reports.tables import architecture_dict

    value = architecture(spec) if isinstance(spec, str) else spec
    value.validate(dim)
    check_accounting(value.layers, dim, length)
    document = architecture_dict(value, vocab_size=vocab_size, length=length, dim=dim)
    return pd.DataFrame([*document["layers"], {"layer": "total", **document["total"]}])


def plan_of(
    specs: Specs,
    protocol: ProtocolLike | None = None,
    *,
    suite: str | None = None,
    tasks: Sequence[str] | None = None,
    seeds: SeedCount | Sequence[int] | None = None,
    device: Device = "cpu",
) -> Plan:
    """The plan of a run; ``specs`` may be the path of a study's file, which names protocol and architectures.

    Raises:
        ArchlabError: something cannot be met as asked.
    """
    chosen, architectures = read_specs(specs, protocol, suite)
    if tasks is not None:
        chosen = chosen.with_tasks(tasks)
    if seeds is not None:
        chosen = chosen.with_seeds(range(seeds) if isinstance(seeds, int) else seeds)
    return make_plan(chosen, architectures, device)


def default_listeners(given: Sequence[Listener] | None) -> Sequence[Listener]:
    """The listeners of a run: by default a live view on standard error."""
    if given is not None:
        return given
    from rich.console import Console

    from archlab.reports.live import LiveView

    return [LiveView(Console(stderr=True))]


def _check_label(location: Location, label: str, plan: Plan | dict[str, Any]) -> None:
    """Refuse what is no name, and the label of an earlier run that set out to compute something else."""
    if not label:
        return
    if label.isdigit() or label != label.strip() or not label.isprintable():
        why = "a number could be mistaken for that of another run" if label.isdigit() else "it begins or ends with a space"
        why = why if label.isprintable() else "it has characters that cannot be printed"
        raise ArchlabError(f"label={label!r} (--as): {why}: give a name")
    with suppress(NoStoreError), TrialStore(location, create=False) as store:
        for earlier in store.runs(lambda note: note.get("search") or Plan.from_dict(note), unreadable={}):
            if earlier.label == label and earlier.plan != plan:
                raise ArchlabError(f"label={label!r} (--as): run {earlier.number} of {store.where} has it: give another")


def _left(trials: Sequence[Trial], location: Location, race: Race) -> tuple[list[Trial], dict[Trial, OutcomeRecord | None]]:
    """The trials that have to be computed as far as is known, and all trials with the records of those that have a result in
    the store."""
    racing = Racing(trials, race)
    known: dict[Trial, OutcomeRecord | None] = dict.fromkeys(trials)
    planned = {trial.key: trial for trial in trials}
    left = dict(planned)
    records: list[OutcomeRecord] = []
    with suppress(NoStoreError), TrialStore(location, create=False) as store:
        records = store.outcomes(keys=left, statuses=racing.settled, unreadable={})
    for record in records:
        assert record.result is not None
        trial = planned[record.key]  # whose key is known
        known[trial] = record
        for done in (trial, *racing.observe(trial, record.result)):
            left.pop(done.key, None)
    return list(left.values()), known
