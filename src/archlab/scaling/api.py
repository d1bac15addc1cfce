"""The functions of :mod:`archlab.scaling`: plan a study, train it, fit and compare its losses, predict from the fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from archlab.corpora import prepare
from archlab.errors import ArchlabError
from archlab.fields import Count, Positive, SeedCount, Workers, checked
from archlab.jobs.attempts import noted
from archlab.jobs.events import Listener, RunSummary
from archlab.jobs.executor import Executor, make_executor
from archlab.jobs.policy import Policy
from archlab.jobs.pull import Elsewhere, submit
from archlab.layers.ops.kernels import require
from archlab.machine import Device
from archlab.scaling.analysis.comparison import StudyComparison, compare_study
from archlab.scaling.fits import ParametricFit, Resampling
from archlab.scaling.fits.isoflop import WINDOW
from archlab.scaling.fits.resampling import IntervalMethod
from archlab.scaling.ladder import Ladder, load_ladder
from archlab.scaling.laws import Law, Laws, Optimum, extrapolation, optimum
from archlab.scaling.models import Keep
from archlab.scaling.objections import refuse
from archlab.scaling.planner import make_plan, named_specs
from archlab.scaling.process_group import ProcessGroupExecutor, follow
from archlab.scaling.processes import Processes, launched_together
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import LMProgress, LMResult
from archlab.scaling.runner import TrunksInTurn, corpus_of, train_all, train_jobs
from archlab.scaling.store import StudyStore
from archlab.scaling.study import Parameters, Study, open_study
from archlab.scaling.study_fit import StudyFit, fit_architectures, fit_study, missing_laws
from archlab.scaling.submission import describe
from archlab.scaling.training_plan import Plan
from archlab.scaling.trial import LMTrial
from archlab.scaling.tuning import DOUBLINGS, Bracketing, Tuning, read_tuning, sweep
from archlab.scaling.warnings import WarningGroup, grouped
from archlab.store.database import shown
from archlab.store.kept import folder_beside

if TYPE_CHECKING:
    import pandas as pd

STORE = "archlab.db"
TUNING_STORE = "tune.db"
PathLike = str | os.PathLike[str]


@checked
def plan(
    specs: str | Sequence[str] | Mapping[str, str] = (),
    ladder: str | Ladder = "quick",
    *,
    budgets: Sequence[float] | None = None,
    sizes: int | None = None,
    data: str | None = None,
    tokenizer: str | None = None,
    length: int | None = None,
    seeds: SeedCount | Sequence[int] | None = None,
    tuned: PathLike | None = None,
    **values: Any,
) -> Plan:
    """Plan an IsoFLOP study: budgets, sizes around each optimum, and the steps that spend each budget.

    The corpus is prepared on first use and kept in the cache folder.

    Args:
        specs: catalogue names or specs, or specs by label; by default those that the ladder names.
        ladder: ``"smoke"``, ``"quick"``, ``"standard"``, ``"paper"``, the path of a YAML file, or a ladder.
        budgets: training FLOPs of each IsoFLOP group.
        sizes: number of sizes in each group.
        data: source of the corpus: ``"stdlib"``, a file or folder, or ``"hf:NAME"``.
        tokenizer: ``"bytes"``, ``"ascii"``, ``"dna"``, ``"bpe:SIZE"`` or ``"hf:NAME"``.
        length: tokens of a sequence.
        seeds: how many seeds of each size, or which.
        tuned: a store that :func:`tune` filled: its factors multiply the rule's learning rates.
        values: other fields of the ladder, such as ``spread`` or ``learning_rate``.

    Raises:
        ArchlabError: a spec, ladder or value is wrong, a budget is too small for a size, or there is an objection to the plan
            (:mod:`archlab.scaling.objections`) that ``allow`` does not name.
    """
    seeds = list(range(seeds)) if isinstance(seeds, int) else seeds
    options = {"budgets": budgets, "sizes": sizes, "data": data, "tokenizer": tokenizer, "length": length, "seeds": seeds}
    used = (load_ladder(ladder) if isinstance(ladder, str) else ladder).with_values(**options, **values)
    if tuned is not None:
        used = used.with_values(learning_rate_factors=read_tuning(tuned, used.rule).factors)
    named = named_specs(([specs] if isinstance(specs, str) else specs) or used.architectures)  # before a corpus is read
    corpus = prepare(used.data, used.tokenizer) if used.vocab_size is None else None
    planned = make_plan(used, named, corpus)
    refuse(planned, used, corpus)
    planned.try_layers()
    return planned


@checked
def train(
    plan: Plan | PathLike,
    *,
    store: PathLike = STORE,
    recipe: LMRecipe | None = None,
    device: Device = "cpu",
    workers: Workers | None = None,
    executor: str = "local",
    time_limit: Positive | None = None,
    checkpoints: PathLike | None = None,
    keep: Keep = "weights",
    params: Sequence[float] | None = None,
    by_architecture: bool = False,
    replicas: Count = 1,
    priority: int = 0,
    listeners: Sequence[Listener] = (),
) -> RunSummary:
    """Train the language models of a plan that the store lacks.

    On this machine they train side by side, one to a worker. In processes that ``torchrun`` has started they train one after
    the other, each over all processes (FSDP); all but the first process return an empty summary. A training run that was
    interrupted goes on from its last checkpoint.

    Args:
        plan: the plan, or the path of its file.
        store: where the results go: an SQLite file, or an SQLAlchemy URL.
        recipe: how the models are trained, beside what the plan says.
        device: ``"cpu"`` or ``"cuda"``.
        workers: models that train at once; by default one a core, or one a GPU.
        executor: where they train: ``"local"``, on this machine; ``"ray"`` or ``"ray:ADDRESS"``, on a Ray cluster, whose nodes
            share the folder of checkpoints; or ``"workers"``, where `archlab work` runs on this store.
        time_limit: minutes that a training run may take; by default twenty times the predicted time, and at least 15.
        checkpoints: folder of unfinished training runs; by default beside the store.
        keep: what stays of a finished training run beside its result, in a folder beside the store: ``"weights"``,
            ``"checkpoints"`` (these too), or ``"none"``. It changes no result.
        params: the least and the most parameters of the models to train; by default all.
        by_architecture: train one architecture after the other, in the order of the plan, so that those of a call that ends early
            are complete; by default the most expensive models of all come first, which takes least time. Not with ``"workers"``.
        replicas: groups into which the processes of ``torchrun`` part, each with a whole model that its processes share (HSDP).
            As many as there are nodes keep the gathering of parameters within nodes. They change losses by rounding only.
        priority: with ``"workers"``: those of the highest train first.
        listeners: called with every event of the run.

    Raises:
        ArchlabError: the plan, recipe or corpus is wrong, or the store cannot be written.
        KeyboardInterrupt: after Ctrl-C; every training run has written a checkpoint.
        Interrupted: a signal ended the processes that share a model.
    """
    name, planned = ("plan", plan) if isinstance(plan, Plan) else (os.fspath(plan), Plan.load(plan))
    options: dict[str, Any] = {"keep": keep, "name": name, "params": params, "priority": priority, "time_limit": time_limit}
    options["replicas"] = replicas
    options |= {"policy": lambda _: TrunksInTurn(by_architecture=by_architecture)}
    return _train(planned, recipe, store, device, workers, executor, checkpoints, listeners, **options)


@checked
def tune(
    plan: Plan | PathLike,
    *,
    store: PathLike = TUNING_STORE,
    recipe: LMRecipe | None = None,
    device: Device = "cpu",
    workers: Workers | None = None,
    executor: str = "local",
    checkpoints: PathLike | None = None,
    listeners: Sequence[Listener] = (),
) -> Tuning | None:
    """Tune the learning rate of every architecture of a plan, for ``plan(..., tuned=store)``.

    At the two smallest budgets, at the size nearest the centre, the plan's rate is doubled or halved until the best one is
    bracketed. An interrupted call goes on where it was. Returns nothing in processes that follow another.

    Args:
        plan: the plan, or the path of its file.
        store: where the training runs go: not the store of a study, whose fits would count them.
        recipe: as in :func:`train`.
        device: as in :func:`train`.
        workers: as in :func:`train`.
        executor: as in :func:`train`.
        checkpoints: as in :func:`train`.
        listeners: as in :func:`train`.

    Raises:
        ArchlabError: the plan, recipe or corpus is wrong, the store holds a study, or a training run failed.
        KeyboardInterrupt: after Ctrl-C; every training run has written a checkpoint.
        Interrupted: a signal ended the processes that share a model.
    """
    runs = sweep(plan if isinstance(plan, Plan) else Plan.load(plan))
    keys: list[str] = []

    def policy(trials: Sequence[LMTrial]) -> Bracketing:
        keys.extend(trial.key for trial in trials)
        return Bracketing(trials)

    summary = _train(
        Plan(tuple(runs)), recipe, store, device, workers, executor, checkpoints, listeners, keep="none", policy=policy
    )
    if not summary.total:
        return None
    if summary.failed:
        raise ArchlabError(f"a training run failed: {next(iter(summary.failed.values()))}: the same call tries it again")
    planned = {(run.label, run.budget): run.learning_rate * 2**DOUBLINGS for run in reversed(runs)}
    return read_tuning(store, lambda run: planned[run.label, run.budget], keys)


def _train(
    plan: Plan,
    recipe: LMRecipe | None,
    store: PathLike,
    device: Device,
    workers: int | None,
    executor: str,
    checkpoints: PathLike | None,
    listeners: Sequence[Listener],
    *,
    keep: Keep,
    policy: Callable[[Sequence[LMTrial]], Policy[LMTrial, LMResult]],
    name: str | None = None,
    params: Sequence[float] | None = None,
    replicas: int = 1,
    priority: int = 0,
    time_limit: float | None = None,
) -> RunSummary:
    """Train what a policy asks for; a plan with a name is remembered, so that fits can name what is missing."""
    used = recipe or LMRecipe()
    require(used.kernels, device)
    if replicas > 1 and not launched_together():
        raise ArchlabError(f"replicas={replicas} (--replicas): only processes that torchrun has started share a model")
    plan.try_layers(device)
    first = plan.runs[0]
    corpus = corpus_of(first.corpus, first.tokenizer)
    trials = [LMTrial(run, used, device).on(corpus) for run in plan.runs]
    wanted = trials if params is None else [trial for trial in trials if params[0] <= trial.run.params <= params[-1]]
    if not wanted or (params is not None and len(params) != 2):
        raise ArchlabError(f"params={params}: no model of the plan has so many: give the least and the most, as in 0,1e9")
    with ExitStack() as stack:
        folder = stack.enter_context(folder_beside(store, "checkpoints", "by --checkpoints", checkpoints))
        models = None if keep == "none" else stack.enter_context(folder_beside(store, "models", "for the store, or --keep none"))
        modules = sorted({module for trial in trials for module in trial.origin.split()})
        work = partial(train_jobs, checkpoints=folder, models=models, keep=keep, modules=modules)
        pool: Executor[LMTrial, LMProgress, LMResult]
        if launched_together():
            if time_limit is not None:
                raise ArchlabError(f"time_limit={time_limit:g} (--time-limit): processes that share a model have none")
            processes = stack.enter_context(Processes.join(device, replicas))
            work = partial(work, processes=processes)
            if not processes.is_first:
                follow(work, processes)
                return RunSummary(total=0)
            pool = stack.enter_context(ProcessGroupExecutor(work, processes))
        else:
            pool = stack.enter_context(
                make_executor(work, workers, device=device, name=executor, submits=name is not None, time_limit=time_limit)
            )
        opened = stack.enter_context(StudyStore(store))
        if name is None:
            if opened.plans({}):
                where = shown(store)
                raise ArchlabError(
                    f"{where} holds a study, whose fits would count those of a tuning: give another store (--store)"
                )
            return train_all(wanted, opened, pool, folder, listeners, keep, policy(wanted))
        number = opened.remember_plan(name, trials)
        heard = [stack.enter_context(noted(opened, number, executor, device)), *listeners]
        if isinstance(pool, Elsewhere):
            asked: dict[str, Any] = {"number": number, "priority": priority, "executor": pool, "policy": policy(wanted)}
            return submit(wanted, opened, describe(wanted), listeners=heard, **asked)
        return train_all(wanted, opened, pool, folder, heard, keep, policy(wanted))


@checked
def fit(
    study: Study | PathLike = STORE,
    *,
    intervals: IntervalMethod = "bootstrap",
    resamples: int = 300,
    confidence: float = 0.95,
    parameters: Parameters = "all",
    window: float = WINDOW,
    asymmetric: bool = False,
    on_method: Callable[[], object] | None = None,
) -> StudyFit:
    """Fit scaling laws to the language models of a store, and compare their architectures.

    Args:
        study: a store (file or SQLAlchemy URL), or a study that was read from one.
        intervals: ``"bootstrap"`` or ``"jackknife"``.
        resamples: resamples of the bootstrap; 0 for no intervals.
        confidence: fraction of intervals that should hold the truth.
        parameters: for a store: ``"all"``, or ``"non-embedding"`` to leave out embedding and unembedding.
        window: parabolas go through the sizes within this factor of the best one of a budget; ``inf`` for all.
        asymmetric: also fit the law by absolute errors of which those above the loss count ten times; its resamples take minutes.
        on_method: called after each method of each architecture.

    Raises:
        ArchlabError: there is no such store, its training runs do not compare, or no architecture has two finished sizes.
    """
    resampling = Resampling(resamples, confidence, method=intervals)
    opened = study if isinstance(study, Study) else open_study(study, parameters)
    return fit_study(opened.with_window(window), resampling, on_method, asymmetric=asymmetric)


@checked
def compare(
    study: Study | PathLike = STORE,
    *,
    reference: str | None = None,
    flops: Sequence[Positive] = (),
    resamples: int = 300,
    confidence: float = 0.95,
    parameters: Parameters = "all",
) -> StudyComparison:
    """Compare the architectures of a store with one of them: loss difference, compute multiplier, and where they cross.

    Numbers are those of laws with a floor, each architecture at the best size of a budget; intervals come from joint resamples
    of all laws, with errors judged budget by budget and without outliers.

    Args:
        study: a store (file or SQLAlchemy URL), or a study that was read from one.
        reference: label of an architecture; by default the one of least loss at the largest budget that several share.
        flops: budgets beside those that were trained; each row says how far it lies beyond them.
        resamples: resamples of the laws; 0 for no intervals. With as many, :func:`fit` gives the same intervals.
        confidence: fraction of intervals that should hold the truth.
        parameters: for a store: ``"all"``, or ``"non-embedding"`` to leave out embedding and unembedding.

    Raises:
        ArchlabError: there is no such store, its training runs do not compare, it has a single architecture, the reference is
            none of them, no two architectures can be compared at a budget, or ``flops`` are asked for and the runs determine no
            two laws.
    """
    opened = study if isinstance(study, Study) else open_study(study, parameters)
    found = compare_study(opened.tables, Resampling(resamples, confidence), reference=reference, flops=flops)
    notes = (*grouped(opened.gaps), *found.notes)
    if not found.rows:
        raise ArchlabError(f"nothing to compare: {'; '.join(map(str, notes))}")
    return replace(found, notes=notes)


@dataclass(frozen=True)
class Prediction:
    """The compute-optimal model of a budget, by one method."""

    architecture: str
    method: str
    optimum: Optimum | str
    """The optimum, or the reason why there is none."""
    extrapolation: float | None
    """The budget over the largest of the runs, or the smallest over it; at most 1 between them."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of all architectures by all methods."""

    rows: tuple[Prediction, ...]
    confidence: float
    warnings: tuple[WarningGroup, ...]
    """Architectures without predictions, and why."""

    def to_dict(self) -> list[dict[str, Any]]:
        """Return a list of predictions, JSON-ready."""
        rows = []
        for row in self.rows:
            found = {"refused": row.optimum} if isinstance(row.optimum, str) else asdict(row.optimum)
            beyond = {} if isinstance(row.optimum, str) else {"beyond_the_data": row.extrapolation}
            rows.append({"architecture": row.architecture, "method": row.method, **found, **beyond})
        return rows

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame with a row for each architecture and method."""
        import pandas as pd

        return pd.json_normalize(self.to_dict(), sep="_")

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.4g}".format))


@checked
def predict(
    study: Study | PathLike = STORE,
    *,
    flops: Positive | None = None,
    loss: Positive | None = None,
    intervals: IntervalMethod = "bootstrap",
    resamples: int = 300,
    confidence: float = 0.95,
    parameters: Parameters = "all",
    window: float = WINDOW,
    asymmetric: bool = False,
    on_method: Callable[[], object] | None = None,
) -> Predictions:
    """Predict the compute-optimal size, tokens and loss of a budget, or of the budget that reaches a loss.

    Args:
        study: a store (file or SQLAlchemy URL), or a study that was read from one.
        flops: the budget.
        loss: the loss to reach, in nats a token, in place of a budget.
        intervals: as in :func:`fit`.
        resamples: as in :func:`fit`.
        confidence: as in :func:`fit`.
        parameters: as in :func:`fit`.
        window: as in :func:`fit`.
        asymmetric: as in :func:`fit`.
        on_method: as in :func:`fit`.

    Raises:
        ArchlabError: not exactly one of ``flops`` and ``loss`` is given, or no method predicts anything.
    """
    if (flops is None) == (loss is None):
        raise ArchlabError("give flops (as in 1e21) or loss (as in 2.0), and not both")
    resampling = Resampling(resamples, confidence, method=intervals)
    opened = (study if isinstance(study, Study) else open_study(study, parameters)).with_window(window)
    fitted, without_laws = fit_architectures(opened, Resampling(0), asymmetric=asymmetric)
    found = [
        *opened.gaps,
        *missing_laws(without_laws),
        *((f"no law by {method}: {reason}", one.runs.label) for one in fitted for method, reason in one.no_laws.items()),
    ]
    warnings = grouped(found)
    rows = []
    for laws in fitted:
        for law in laws.by_method.values():
            if flops is not None or isinstance(law.fit, ParametricFit):  # other methods do not know the floor of the loss
                rows.append(_prediction(laws, law, flops, loss, resampling))
            if on_method is not None:
                on_method()
    if all(isinstance(row.optimum, str) for row in rows):
        raise ArchlabError("; ".join(dict.fromkeys([*(str(row.optimum) for row in rows), *map(str, warnings)])))
    return Predictions(tuple(rows), confidence, warnings)


def _prediction(laws: Laws, law: Law, flops: float | None, loss: float | None, resampling: Resampling) -> Prediction:
    label = laws.runs.label
    try:
        best = optimum(laws.runs, law.method, law.fit, laws.cost, resampling, flops=flops, loss=loss)
    except ArchlabError as error:
        return Prediction(label, law.method, str(error), None)
    return Prediction(label, law.method, best, extrapolation(laws.runs, best.flops.value))
