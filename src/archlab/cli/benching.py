"""What ``archlab bench`` does; imports weigh, so it is loaded inside the command."""

from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from archlab.cli.output import message, print_json, print_table
from archlab.format import duration
from archlab.jobs.local import LocalExecutor
from archlab.machine import Ceilings
from archlab.mad.estimate import all_flops
from archlab.mad.memory import peak_bytes
from archlab.mad.plan import Plan, make_plan
from archlab.mad.protocol import load_protocol, protocol_names
from archlab.mad.speed import cheapest, measure, remember
from archlab.mad.trial import Trial

SHOWN = "in-context-recall"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A training step of one architecture under one protocol, on one worker, and what the protocol takes."""

    protocol: str
    architecture: str
    ms: float
    examples_per_second: float
    flops_per_second: float
    fraction_of_gemm: float
    peak_bytes: int
    seconds: float
    """All trainings from one seed, if nothing stops early, on all workers."""


def show_speed(specs: list[str], workers: int | None, device: Literal["cpu", "cuda"], *, as_json: bool) -> None:
    """Measure, remember, print."""
    plans = {name: make_plan(load_protocol(name), specs, device) for name in protocol_names()}
    executor = LocalExecutor(workers, device=device)
    num_workers = executor.num_workers
    executor.shutdown()
    kinds: dict[str, Trial] = {}
    for plan in plans.values():
        for name, trial in cheapest(plan.trials()).items():
            kinds.setdefault(name, trial)
    message(f"measuring {len(kinds)} kinds of training step with {num_workers} workers at once: about a second each")
    names = list(kinds)
    speeds: dict[str, float] = {}
    ceilings = Ceilings(0, 0)
    for found in measure(kinds.values(), num_workers):
        if isinstance(found, Ceilings):
            ceilings = found
        else:
            speeds[names[len(speeds)]] = found[1]
    remember(ceilings, speeds)
    by_kind = {(str(t.architecture), t.setting.name, t.dim): speeds[name] for name, t in kinds.items()}
    rows = [_row(plan, trial, by_kind, ceilings, num_workers) for plan in plans.values() for trial in _base(plan)]
    if as_json:
        print_json({"workers": num_workers, "device": device, "ceilings": vars(ceilings), "steps": [vars(row) for row in rows]})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("protocol", "architecture", "ms a step", "examples/s", "GFLOP/s", "of peak", "MiB", "one seed takes"):
        table.add_column(head, justify="left" if head in ("protocol", "architecture") else "right", overflow="fold")
    for row in rows:
        table.add_row(
            Text(row.protocol),
            Text(row.architecture),
            f"{row.ms:.1f}",
            f"{row.examples_per_second:.0f}",
            f"{row.flops_per_second / 1e9:.1f}",
            f"{100 * row.fraction_of_gemm:.0f} %",
            f"{row.peak_bytes / 2**20:.0f}",
            duration(row.seconds),
        )
    table.caption = (
        f"a worker's step on recall's base setting, {num_workers} workers at once; peak: a product of large matrices, "
        f"{ceilings.gemm / 1e9:.0f} GFLOP/s a worker; copying: {ceilings.copy / 1e9:.1f} GB/s a worker; MiB: predicted peak of a "
        "worker beside its process; time: all tasks, settings and grid points, if nothing stops early, all workers together"
    )
    table.caption_justify = "left"
    print_table(table)


def _base(plan: Plan) -> list[Trial]:
    """Each architecture's first training on the shown task."""
    found: dict[str, Trial] = {}
    for trial in plan.trials():
        if trial.setting.name == SHOWN:
            found.setdefault(str(trial.architecture), trial)
    return list(found.values())


def _row(plan: Plan, trial: Trial, speeds: dict[tuple[str, str, int], float], ceilings: Ceilings, num_workers: int) -> Row:
    spec = str(trial.architecture)
    speed = speeds[spec, trial.setting.name, trial.dim]
    per_example = trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples)
    own = [t for t in plan.trials() if str(t.architecture) == spec and t.seed == plan.protocol.seeds[0]]
    seconds = sum(all_flops(t) / speeds[spec, t.setting.name, t.dim] for t in own) / min(num_workers, len(own))
    return Row(
        protocol=plan.protocol.name,
        architecture=trial.architecture.label,
        ms=1e3 * per_example * trial.recipe.batch_size / speed,
        examples_per_second=speed / per_example,
        flops_per_second=speed,
        fraction_of_gemm=speed / ceilings.gemm,
        peak_bytes=peak_bytes(trial),
        seconds=seconds,
    )
