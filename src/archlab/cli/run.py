"""archlab run: put architectures through a protocol."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archlab.cli.options import (
    DEFAULT_STORE,
    Executor,
    GridValues,
    Json,
    KeepTrials,
    LayerFiles,
    Log,
    Priority,
    RayAddress,
    Seeds,
    Set,
    Settings,
    Store,
    TaskFiles,
    Tasks,
    TimeLimit,
    Workers,
)

if TYPE_CHECKING:
    from archlab.jobs.events import Event, Listener, RunSummary
    from archlab.mad.estimate import Compilation, Estimate
    from archlab.mad.plan import Plan
    from archlab.mad.preview import Preview
    from archlab.mad.trial import Trial


class Race(StrEnum):
    """Which grid points need not be trained to the end."""

    exact = "exact"
    halving = "halving"
    off = "off"


class Device(StrEnum):
    """Where trials run."""

    cpu = "cpu"
    cuda = "cuda"


def run(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC",
            help="Catalogue names, or specs like 'mh-hyena swiglu mh-attention swiglu'; or the YAML file of a study, which "
            "names architectures and protocol.",
        ),
    ],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="smoke, quick, standard, paper, mad-lab (see `archlab protocols`), or the path of a YAML file.",
            show_default="quick",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Which tasks of the protocol: mad, the six whose mean is the MAD score; recall or state, further tasks that do "
            "not count in it; all.",
            show_default="mad",
        ),
    ] = None,
    tasks: Tasks = None,
    settings: Settings = "all",
    grid: GridValues = None,
    seeds: Seeds = None,
    changes: Set = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    store: Store = DEFAULT_STORE,
    race: Annotated[
        Race,
        typer.Option(
            help="Leave out grid points that can no longer change a score, because one before them has solved the setting "
            "(exact); also drop those whose loss falls behind on the way (halving); train all of them (off)."
        ),
    ] = Race.exact,
    workers: Workers = None,
    time_limit: TimeLimit = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    priority: Priority = 0,
    population: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Trials that a worker trains together, stacked into one program or side by side, whichever is faster: seeds "
            "and grid points of one setting. auto: as many as fit on a GPU, one on a CPU, where more gain nothing.",
        ),
    ] = "auto",
    iso_state: Annotated[
        int | None,
        typer.Option(
            help="First set the knobs of every architecture so that its matrix state has this many scalars in all, as "
            "`archlab normalise` does; what is done and what cannot be reached goes to standard error."
        ),
    ] = None,
    keep: KeepTrials = "none",
    log: Log = None,
    label: Annotated[str, typer.Option("--as", metavar="LABEL", help="A name for the run, see `archlab runs`.")] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print how many trials, how many FLOPs and how long, and stop; nothing is written."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train architectures on the synthetic tasks of a protocol and print the leaderboard.

    Every finished trial is in the store at once: after Ctrl-C or a crash the same command does the rest, and what is
    there is never computed again. Progress goes to standard error.

    For example: `archlab run transformer++ "mamba swiglu mamba swiglu" --seeds 1`
    """
    from rich.console import Console

    import archlab
    from archlab.cli.describe import warn_of
    from archlab.cli.normalise import tell
    from archlab.cli.options import executor_at, narrowed
    from archlab.cli.output import how_to_go_on, message, print_json, print_scores, store_option, thinking
    from archlab.cli.signals import status_of, terminable
    from archlab.jobs.events import RunEnded
    from archlab.mad.plan import at_equal_state, make_plan
    from archlab.mad.study import read_specs
    from archlab.reports.findings import spent
    from archlab.reports.live import LiveView

    asked, architectures = read_specs(specs, protocol, suite)
    chosen = narrowed(asked, tasks, settings, grid, seeds, changes)
    if iso_state is not None:
        plan = make_plan(chosen, architectures, device.value)
        equal, found = at_equal_state(plan, iso_state)
        for value, normal in zip(plan.architectures, found, strict=True):
            tell(value.label, normal)
        architectures = [*equal.architectures]
    options: dict[str, Any] = {
        "store": store,
        "label": label,
        "race": race.value,
        "device": device.value,
        "executor": executor_at(executor, ray_address),
        "workers": workers,
        "population": population_of(population),
    }
    if dry_run:
        with thinking("estimating time and memory"):
            foreseen = archlab.preview(architectures, chosen, **options)
        warn_of(foreseen.plan.architectures)
        if as_json:
            print_json(foreseen.to_dict())
        else:
            print_preview(foreseen, store)
        return
    if executor == "workers":
        message(f"`archlab work{store_option(store)}` on any machine computes what is submitted")
    ended = _Ending()
    loggers = [archlab.logger(where) for where in log or ()]
    try:
        with terminable(), thinking("looking up what is left to compute") as think:
            listeners: list[Listener] = [
                lambda event: think("scoring" if isinstance(event, RunEnded) else ""),
                ended,
                LiveView(Console(stderr=True)),
                *loggers,
            ]
            scores = archlab.run(
                architectures, chosen, **options, time_limit=time_limit, priority=priority, keep=keep, listeners=listeners
            )
    except KeyboardInterrupt as stopped:
        message(how_to_go_on(store, executor))
        sys.exit(status_of(stopped))
    assert ended.summary is not None
    _report(ended.summary, ended.trials)
    for key, why in ended.not_kept.items():
        message(f"warning: the weights of {ended.trials[key]} were not kept: {why}")
    if keep == "weights" and ended.summary.reused:
        again = f"archlab trials rerun KEY --keep weights{store_option(store)}"
        message(f"weights are kept of trials that are computed, not of those taken from the store: `{again}` computes one again")
    if scores.spending.flops_spent < scores.spending.flops:
        message(spent(scores.spending))
    if as_json:
        print_json(scores.to_dict())
    else:
        print_scores(scores)
        message(f"`archlab report{store_option(store)}` draws the curves and shows where every number comes from")
    if ended.summary.failed:
        sys.exit(1)


class _Ending:
    """A listener that warns of architectures that cannot recall anything, and remembers how the run and its jobs ended."""

    def __init__(self) -> None:
        self.summary: RunSummary | None = None
        self.trials: dict[str, Trial] = {}
        self.not_kept: dict[str, str] = {}

    def __call__(self, event: "Event") -> None:
        from archlab.cli.describe import warn_of
        from archlab.jobs.events import JobFinished, RunEnded, RunStarted

        if isinstance(event, RunStarted):
            self.trials = {trial.key: trial for trial in event.jobs}
            warn_of(dict.fromkeys(trial.architecture for trial in event.jobs))
        elif isinstance(event, JobFinished) and event.result.not_kept:
            self.not_kept[event.job.key] = event.result.not_kept
        elif isinstance(event, RunEnded):
            self.summary = event.summary


def population_of(text: str) -> int | None:
    """The value of ``--population``.

    Raises:
        ArchlabError: it is neither ``auto`` nor a number that is at least 1.
    """
    from archlab.errors import ArchlabError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArchlabError(f"--population {text}: give auto, or a whole number that is at least 1")
    return int(text)


def print_preview(foreseen: "Preview", store: str) -> None:
    """Print what a run will take, and how much of it the store has already."""
    from rich.table import Table
    from rich.text import Text

    from archlab.cli.output import print_table
    from archlab.machine import available_bytes
    from archlab.store.database import shown

    plan = foreseen.plan
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("protocol", Text(f"{plan.protocol.name}: {plan.protocol.summary}"))
    for number, value in enumerate(plan.architectures, start=1):
        text = f"{value.name} = {value}" if value.name else str(value)
        table.add_row("architectures" if number == 1 else "", Text(f"{number}. {text}" if len(plan.architectures) > 1 else text))
    table.add_row("trials", f"{foreseen.trials:,} = {_factors(plan)}")
    table.add_row("in the store", Text(f"{foreseen.stored:,} of them ({shown(store)})"))
    if foreseen.not_needed:
        table.add_row("not needed", f"{foreseen.not_needed:,} of them: another grid point has solved the setting")
    table.add_row(
        "compute", f"{foreseen.flops:.3g} FLOPs" + (f", {foreseen.cost.flops:.3g} of them still to do" if foreseen.stored else "")
    )
    table.add_row("time", _time(foreseen.cost, foreseen.num_workers))
    if foreseen.compiling:
        table.add_row("compiling", _compiling(foreseen.compiling))
    if foreseen.times_faster_by_kernels:
        table.add_row("kernels", _by_kernels(foreseen.times_faster_by_kernels))
    if foreseen.left:
        table.add_row("memory", f"{foreseen.peak_bytes / 2**30:.1f} GiB of the {available_bytes() / 2**30:.1f} GiB free here")
    print_table(table)


def _factors(plan: "Plan") -> str:
    from archlab.format import count

    points = {len(task.grid.points()) for task in plan.protocol.tasks.values()}
    low, high = min(points), max(points)
    grid = count(high, "grid point") if low == high else f"{low} to {high} grid points"
    factors = (count(len(plan.architectures), "architecture"), count(plan.protocol.num_settings, "setting"), grid)
    return " x ".join((*factors, count(len(plan.protocol.seeds), "seed")))


def _time(cost: "Estimate", num_workers: int) -> str:
    from archlab.format import count, duration

    if not cost.trials:
        return "none: the store has every trial that is needed"
    source = f"speeds of `archlab bench`, {cost.measured}" if cost.measured else "steps timed just now"
    most = duration(cost.seconds) if cost.seconds < 1 else f"at most about {duration(cost.seconds)}"
    return (
        f"{most} on this machine with {count(num_workers, 'worker')}, after a few seconds to start ({source}); less where a "
        "trial solves its task early, and where racing leaves some out"
    )


def _compiling(cost: "Compilation") -> str:
    from archlab.format import count, duration

    workers = f"{duration(cost.seconds)} in each of {count(cost.num_workers, 'worker')}"
    if cost.saved <= 0:
        return f"{workers}, and the steps get no faster: leave recipe.compiled=true out"
    saves = f"{workers}, saves {duration(cost.saved)} of training in all"
    return saves if cost.pays else f"{saves}: does not pay, leave recipe.compiled=true out"


def _by_kernels(faster: float) -> str:
    advice = "" if faster > 1 else ": leave recipe.kernels=fla out"
    return f"eager steps take {1 / faster:.2f} times as long as with PyTorch's operations{advice}"


def _report(summary: "RunSummary", trials: "dict[str, Trial]") -> None:
    from archlab.cli.output import message
    from archlab.format import count, duration

    parts = [f"{count(summary.computed, 'trial')} computed in {duration(summary.wall_seconds)}"]
    if not summary.computed:
        parts = ["nothing was left to compute"]
    if summary.reused:
        parts.append(f"{count(summary.reused, 'trial')} taken from the store")
    if summary.skipped:
        parts.append(f"{summary.skipped} not needed: another grid point had solved the setting")
    if dropped := summary.count("dropped"):
        parts.append(f"{dropped} dropped on the way")
    if diverged := summary.count("diverged"):
        parts.append(f"{diverged} diverged (count as chance)")
    message("; ".join(parts))
    for key, reason in summary.failed.items():
        message(f"failed: {trials[key]}: {reason}")
