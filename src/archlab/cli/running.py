"""What ``archlab run`` does once the plan is known; imports weigh, so it is loaded inside the command."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from archlab.cli.output import message, print_json, print_scores, print_table, store_option
from archlab.cli.signals import terminable
from archlab.errors import ArchlabError
from archlab.jobs.local import LocalExecutor
from archlab.layers.ops.kernels import require
from archlab.mad.estimate import Compilation, Estimate, compilation, estimate, times_faster_by_kernels
from archlab.mad.memory import available_bytes, check_memory, fitting_population
from archlab.mad.plan import Plan, score_plan
from archlab.mad.racing import Race, Racing
from archlab.mad.runner import RunSummary
from archlab.mad.runner import run as run_trials
from archlab.mad.store import Store
from archlab.mad.trial import Trial
from archlab.reports.findings import spent
from archlab.format import count, human
from archlab.reports.live import LiveView, duration
from archlab.store.database import NoStoreError, shown


@dataclass(frozen=True)
class How:
    """How a plan is run, and where its results go."""

    location: str
    workers: int | None
    race: Race
    population: int | None
    """Trials that a worker trains together; None for as many as pay and fit."""

    def fitting_population(self, trials: list[Trial], num_workers: int) -> int:
        """The population, chosen for what is left to do if it was left open."""
        return self.population or fitting_population(trials, num_workers)


def population_of(text: str) -> int | None:
    """The value of ``--population``.

    Raises:
        ArchlabError: it is neither ``auto`` nor a number that is at least 1.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArchlabError(f"--population {text}: give auto, or a whole number that is at least 1")
    return int(text)


def preview(plan: Plan, how: How, *, as_json: bool) -> None:
    """Print what the plan will cost, and how much of it the store has already; nothing is written."""
    executor = LocalExecutor(how.workers, device=plan.device)
    trials = plan.trials()
    stored, left = _state(trials, how)
    unneeded = len(trials) - stored - len(left)
    _check_can_compute(left)
    compiling = compilation(left, executor.num_workers)  # first, while nothing is compiled yet
    faster = times_faster_by_kernels(left)
    cost = estimate(left, executor.num_workers)
    population = how.fitting_population(left, executor.num_workers)
    memory = check_memory(left, executor.num_workers, population)
    flops = sum(trial.flops for trial in trials)
    if as_json:
        print_json(
            {
                "protocol": plan.protocol.name,
                "architectures": [str(a) for a in plan.architectures],
                "settings": _num_settings(plan),
                "seeds": list(plan.protocol.seeds),
                "trainings": len(trials),
                "stored": stored,
                "not_needed": unneeded,
                "flops": flops,
                "flops_left": cost.flops,
                "workers": executor.num_workers,
                "population": population,
                "seconds": round(cost.seconds, 1),
                "speeds_measured": cost.measured,
                "compiling": compiling and {"seconds": round(compiling.seconds, 1), "saved_seconds": round(compiling.saved, 1)},
                "times_faster_by_kernels": faster and round(faster, 2),
                "peak_bytes": memory,
            }
        )
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("protocol", Text(f"{plan.protocol.name}: {plan.protocol.summary}"))
    for number, value in enumerate(plan.architectures):
        table.add_row("" if number else "architectures", Text(f"{value.name} = {value}" if value.name else str(value)))
    table.add_row("trainings", f"{len(trials):,} = {_factors(plan)}")
    table.add_row("in the store", Text(f"{stored:,} of them ({shown(how.location)})"))
    if unneeded:
        table.add_row("not needed", f"{unneeded:,} of them: another grid point has solved the setting")
    table.add_row("compute", f"{flops:.3g} FLOPs" + (f", {cost.flops:.3g} of them still to do" if stored else ""))
    table.add_row("time", _time(cost, executor.num_workers))
    if compiling:
        table.add_row("compiling", _compiling(compiling))
    if faster:
        table.add_row("kernels", _by_kernels(faster))
    if left:
        table.add_row("memory", f"{memory / 2**30:.1f} GiB of the {available_bytes() / 2**30:.1f} GiB free here")
    print_table(table)


def execute(plan: Plan, how: How, *, as_json: bool) -> None:
    """Run the plan, show how it goes, print its scores."""
    trials = plan.trials()
    executor = LocalExecutor(how.workers, device=plan.device)
    left = _state(trials, how)[1]
    _check_can_compute(left)
    population = how.fitting_population(left, executor.num_workers)
    check_memory(left, executor.num_workers, population)
    with Store(how.location) as store, terminable():
        store.remember_run(plan.to_dict())
        view = LiveView(Console(stderr=True), trials, executor.num_workers)
        try:
            with view:
                summary = run_trials(trials, store, executor, view, how.race, population)
        except KeyboardInterrupt:
            have = view.progress.reused + view.progress.computed
            message(
                f"stopped: {have} of {count(view.progress.total, 'trial')} are in {store.where}; the same command does the rest"
            )
            sys.exit(130)
        finally:
            executor.shutdown()
        _report(summary)
        scores = score_plan(store, plan)
        if scores.spending.flops_spent < scores.spending.flops:
            message(spent(scores.spending))
    if as_json:
        print_json(scores.to_dict())
    else:
        print_scores(scores)
        message(f"`archlab report{store_option(how.location)}` draws the curves and shows where every number comes from")
    if summary.failed:
        sys.exit(1)


def _state(trials: Sequence[Trial], how: How) -> tuple[int, list[Trial]]:
    """How many trials have a result in the store, if there is one, and which are left to compute as far as is known."""
    racing = Racing(trials, how.race)
    left = {trial.key: trial for trial in trials}
    records = []
    with suppress(NoStoreError), Store(how.location, create=False) as store:
        records = store.records(keys=left, statuses=racing.settled)
    for record in records:
        assert record.result is not None
        for trial in (record.trial, *racing.told(record.trial, record.result)):
            left.pop(trial.key, None)
    return len(records), list(left.values())


def _num_settings(plan: Plan) -> int:
    return sum(len(task.settings) for task in plan.protocol.tasks.values())


def _factors(plan: Plan) -> str:
    points = {len(task.grid.points()) for task in plan.protocol.tasks.values()}
    low, high = min(points), max(points)
    grid = count(high, "grid point") if low == high else f"{low} to {high} grid points"
    factors = (count(len(plan.architectures), "architecture"), count(_num_settings(plan), "setting"), grid)
    return " x ".join((*factors, count(len(plan.protocol.seeds), "seed")))


def _time(cost: Estimate, num_workers: int) -> str:
    if not cost.trials:
        return "none: the store has every training that is needed"
    source = f"speeds of `archlab bench`, {cost.measured}" if cost.measured else "steps timed just now"
    return (
        f"at most about {duration(cost.seconds)} on this machine with {count(num_workers, 'worker')}, after a few seconds to "
        f"start ({source}); less where a training solves its task early, and where racing leaves some out"
    )


def _compiling(cost: Compilation) -> str:
    workers = f"{duration(cost.seconds)} in each of {count(cost.num_workers, 'worker')}"
    if cost.saved <= 0:
        return f"{workers}, and the steps get no faster: leave recipe.compiled=true out"
    saves = f"{workers}, saves {duration(cost.saved)} of training in all"
    return saves if cost.pays else f"{saves}: does not pay, leave recipe.compiled=true out"


def _by_kernels(faster: float) -> str:
    advice = "" if faster > 1 else ": leave recipe.kernels=fla out"
    return f"eager steps take {1 / faster:.2f} times as long as with PyTorch's operations{advice}"


def _check_can_compute(trials: Sequence[Trial]) -> None:
    """Refuse to compile where there is nothing to compile with, and kernels that are not there."""
    for name, device in {(trial.recipe.kernels, trial.device) for trial in trials}:
        require(name, device)
    on_cpu = any(trial.recipe.compiled and trial.device == "cpu" for trial in trials)
    if on_cpu and not shutil.which(os.environ.get("CXX", "g++")):
        raise ArchlabError("recipe.compiled=true: there is no C++ compiler here: install g++, or leave it out")


def _report(summary: RunSummary) -> None:
    parts = [f"{count(summary.computed, 'trial')} computed in {duration(summary.wall_seconds)}"]
    if not summary.computed:
        parts = ["nothing was left to compute"]
    if summary.reused:
        parts.append(f"{count(summary.reused, 'trial')} taken from the store")
    if summary.skipped:
        parts.append(f"{summary.skipped} not needed: another grid point had solved the setting")
    if summary.dropped:
        parts.append(f"{summary.dropped} dropped on the way")
    if summary.diverged:
        parts.append(f"{summary.diverged} diverged (count as chance)")
    if summary.computed and summary.wall_seconds:
        parts.append(f"{human(summary.examples / summary.wall_seconds)} examples/s")
    message("; ".join(parts))
    for trial, reason in summary.failed.items():
        message(f"failed: {trial.architecture.label} on {trial.setting}, seed {trial.seed}: {reason}")
