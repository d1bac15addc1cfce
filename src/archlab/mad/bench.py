"""Speed of this machine with all workers busy: its ceilings, its training steps, and the time of every protocol."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from archlab.architectures import Architecture
from archlab.jobs.executor import Executor, make_executor
from archlab.machine import Ceilings, Device, ceilings
from archlab.mad.estimate import all_flops
from archlab.mad.memory import peak_bytes
from archlab.mad.plan import Plan, make_plan
from archlab.mad.protocol import load_protocol, protocol_names
from archlab.mad.speed import cheapest, family, flops_per_second, kind, remember
from archlab.mad.trial import Trial

SHOWN_TASK = "in-context-recall"
Meter = Executor[Trial | Device, None, Ceilings | float]
"""An executor whose jobs are measurements: of a device's ceilings, or of a trial's training FLOP/s."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A training step of one architecture under one protocol, on one worker, and the time of the protocol."""

    protocol: str
    architecture: str
    ms: float
    """Milliseconds of a step on the base setting of recall."""
    examples_per_second: float
    flops_per_second: float
    fraction_of_gemm: float
    peak_bytes: int
    seconds: float
    """Seconds of all trials of one seed, if nothing stops early, on all workers together."""


@dataclass(frozen=True)
class Bench:
    """Measured speed of a machine."""

    num_workers: int
    ceilings: Ceilings
    """Ceilings of one worker."""
    rows: tuple[Row, ...]


def bench(
    specs: Sequence[str | Architecture], workers: int | None = None, device: Device = "cpu", say: Callable[[str], None] = print
) -> Bench:
    """Measure the training steps of architectures on every task of every protocol, and remember them for estimates.

    Args:
        specs: catalogue names, specs or values.
        workers: number of workers, all busy at once; by default one a core, or one a GPU.
        device: kind of device that is measured.
        say: takes one line that tells how long it takes.

    Raises:
        ArchlabError: an architecture is unknown or does not fit a protocol, or there are no such workers.
    """
    plans = [make_plan(load_protocol(name), specs, device) for name in protocol_names()]
    kinds = {kind(trial): trial for plan in plans for trial in cheapest(plan.trials()).values()}
    executor: Meter = make_executor(measure_group, workers, device=device)
    with executor:
        num_workers = executor.num_workers
        say(f"measuring {len(kinds)} kinds of training step with {num_workers} workers at once: about a second each")
        found, speeds = measure(device, list(kinds.values()), executor)
    by_kind = dict(zip(kinds, speeds, strict=True))
    remember(found, by_kind)
    return Bench(num_workers, found, tuple(row for plan in plans for row in _rows(plan, by_kind, found, num_workers)))


def measure(device: Device, trials: Sequence[Trial], executor: Meter) -> tuple[Ceilings, list[float]]:
    """Measure the ceilings of a worker and each trial's training FLOP/s, all workers busy at once; medians over the workers."""

    def everywhere(job: Trial | Device) -> list[Any]:
        submitted = [executor.submit([job], lambda *_: None) for _ in range(executor.num_workers)]
        return [future.result() for (future,) in submitted]

    found = everywhere(device)
    highest = Ceilings(gemm=median(one.gemm for one in found), copy=median(one.copy for one in found))
    return highest, [median(everywhere(trial)) for trial in trials]


def measure_group(
    jobs: Sequence[Trial | Device], on_progress: object, thresholds: object
) -> Iterator[tuple[int, Ceilings | float]]:
    """Measure, in a worker, ceilings of devices and training FLOP/s of trials."""
    for index, job in enumerate(jobs):
        yield index, flops_per_second(job) if isinstance(job, Trial) else ceilings(job)


def _rows(plan: Plan, by_kind: dict[str, float], found: Ceilings, num_workers: int) -> Iterator[Row]:
    trials = plan.trials()
    speeds = {name: by_kind[kind(trial)] for name, trial in cheapest(trials).items()}
    shown: dict[Architecture, Trial] = {}
    for trial in trials:
        if trial.setting.name == SHOWN_TASK:
            shown.setdefault(trial.architecture, trial)
    for architecture, trial in shown.items():
        speed = speeds[family(trial)]
        per_example = trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples)
        own = [t for t in trials if t.architecture == architecture and t.seed == plan.protocol.seeds[0]]
        yield Row(
            protocol=plan.protocol.name,
            architecture=architecture.label,
            ms=1e3 * per_example * trial.recipe.batch_size / speed,
            examples_per_second=speed / per_example,
            flops_per_second=speed,
            fraction_of_gemm=speed / found.gemm,
            peak_bytes=peak_bytes(trial),
            seconds=sum(all_flops(t) / speeds[family(t)] for t in own) / min(num_workers, len(own)),
        )
