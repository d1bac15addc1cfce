"""What ``archlab run`` does once the plan is known; imports weigh, so it is loaded inside the command."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from archlab.benchmark.estimate import estimate
from archlab.benchmark.plan import Plan, score_plan
from archlab.benchmark.runner import RunSummary
from archlab.benchmark.runner import run as run_trials
from archlab.cli.output import message, print_json, print_scores
from archlab.execution import LocalExecutor
from archlab.reports.format import human
from archlab.reports.live import LiveView, duration
from archlab.store import Store


def preview(plan: Plan, workers: int | None, *, as_json: bool) -> None:
    """Print what the plan will cost."""
    executor = LocalExecutor(workers, device=plan.device)
    cost = estimate(plan.trials(), executor.num_workers)
    protocol = plan.protocol
    document = {
        "protocol": protocol.name,
        "architectures": [str(a) for a in plan.architectures],
        "settings": sum(len(task.settings) for task in protocol.tasks.values()),
        "seeds": list(protocol.seeds),
        "trainings": cost.trials,
        "flops": cost.flops,
        "workers": executor.num_workers,
        "seconds": round(cost.seconds, 1),
    }
    if as_json:
        print_json(document)
        return
    typer.echo(f"protocol {protocol.name}: {protocol.summary}")
    typer.echo(
        f"{cost.trials} trainings: {len(plan.architectures)} architectures x {document['settings']} settings x grid x "
        f"{len(protocol.seeds)} seeds"
    )
    typer.echo(
        f"{cost.flops:.2g} FLOPs; at most about {duration(cost.seconds)} on this machine with {executor.num_workers} workers"
    )


def execute(plan: Plan, location: str, workers: int | None, *, as_json: bool) -> None:
    """Run the plan, show how it goes, print its scores."""
    trials = plan.trials()
    console = Console(stderr=True)
    executor = LocalExecutor(workers, device=plan.device)
    with Store(location) as store, _terminable():
        store.remember_run(plan.to_dict())
        try:
            with LiveView(console, trials, executor.num_workers) as view:
                summary = run_trials(trials, store, executor, view)
        except KeyboardInterrupt:
            message(f"stopped: {view.progress.done} of {len(trials)} trials are in {store.where}; the same command does the rest")
            sys.exit(130)
        finally:
            executor.shutdown()
        _report(summary)
        scores = score_plan(store, plan)
    if as_json:
        print_json(scores.to_dict())
    else:
        print_scores(scores)
        message(f"`archlab report --store {location}` shows curves, intervals and where every number comes from")
    if summary.failed:
        sys.exit(1)


def _report(summary: RunSummary) -> None:
    parts = [f"{summary.computed} trials computed in {duration(summary.wall_seconds)}"]
    if summary.reused:
        parts.append(f"{summary.reused} taken from the store")
    if summary.diverged:
        parts.append(f"{summary.diverged} diverged (count as chance)")
    if summary.computed and summary.wall_seconds:
        parts.append(f"{human(summary.examples / summary.wall_seconds)} examples/s")
    message("; ".join(parts))
    for trial, reason in summary.failed.items():
        message(f"failed: {trial.architecture.label} on {trial.setting}, seed {trial.seed}: {reason}")


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat a polite request to end (SIGTERM, as batch systems send) like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
