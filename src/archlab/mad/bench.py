"""The speed of training steps on this machine beside its ceilings, and the time that every protocol takes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from archlab.architectures import Architecture
from archlab.jobs.executor import Executor, make_executor
from archlab.machine import Ceilings, Device
from archlab.mad.estimate import all_flops
from archlab.mad.memory import peak_bytes
from archlab.mad.plan import Plan, make_plan
from archlab.mad.protocol import load_protocol, protocol_names
from archlab.mad.speed import cheapest, measure, measure_jobs, remember
from archlab.mad.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

DEMO = ("transformer++", "hyena", "mamba", "striped-mh-hyena")
"""The architectures of the demo."""
SHOWN = "in-context-recall"
"""The task whose training steps are shown."""


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """A training step of one architecture under one protocol, on one worker, and the time that the protocol takes."""

    protocol: str
    architecture: str
    ms: float
    examples_per_second: float
    flops_per_second: float
    fraction_of_gemm: float
    peak_bytes: int
    seconds: float
    """All trials from one seed, if nothing stops early, on all workers."""


@dataclass(frozen=True)
class Bench:
    """Speeds measured on this machine, which later estimates stand on."""

    num_workers: int
    device: Device
    ceilings: Ceilings
    steps: tuple[StepSpeed, ...]

    def to_frame(self) -> "pd.DataFrame":
        """One row for each protocol and architecture."""
        import pandas as pd

        return pd.DataFrame([asdict(step) for step in self.steps])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        steps = [asdict(step) for step in self.steps]
        return {"workers": self.num_workers, "device": self.device, "ceilings": vars(self.ceilings), "steps": steps}


def bench(
    specs: Sequence[str | Architecture] = DEMO,
    protocols: Sequence[str] | None = None,
    *,
    device: Device = "cpu",
    executor: str = "local",
    workers: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Bench:
    """Measure this machine's ceilings and the training steps of architectures, all workers at once, and remember them.

    Args:
        specs: catalogue names, specs or values.
        protocols: names or files; by default those of the package.
        device: where to measure.
        executor: where the workers run.
        workers: number of workers; by default one a core, or one a GPU.
        on_progress: called with the number of kinds of step that are measured, and of all.

    Raises:
        ArchlabError: something cannot be met as asked.
    """
    plans = [make_plan(load_protocol(name), specs, device) for name in protocols or protocol_names()]
    kinds: dict[str, Trial] = {}
    for plan in plans:
        for name, trial in cheapest(plan.trials()).items():
            kinds.setdefault(name, trial)
    names = list(kinds)
    speeds: dict[str, float] = {}
    ceilings = Ceilings(0, 0)
    on_progress(0, len(kinds))
    pool: Executor[Any, Any, Any] = make_executor(measure_jobs, workers, device=device, name=executor)
    with pool:
        for found in measure(kinds.values(), pool):
            if isinstance(found, Ceilings):
                ceilings = found
            else:
                speeds[names[len(speeds)]] = found[1]
                on_progress(len(speeds), len(kinds))
    remember(ceilings, speeds)
    by_kind = {(str(t.architecture), t.setting.name, t.dim): speeds[name] for name, t in kinds.items()}
    steps = [_step(plan, trial, by_kind, ceilings, pool.num_workers) for plan in plans for trial in _base(plan)]
    return Bench(pool.num_workers, device, ceilings, tuple(steps))


def _base(plan: Plan) -> list[Trial]:
    """Each architecture's first trial of the shown task."""
    found: dict[str, Trial] = {}
    for trial in plan.trials():
        if trial.setting.name == SHOWN:
            found.setdefault(str(trial.architecture), trial)
    return list(found.values())


def _step(plan: Plan, trial: Trial, speeds: dict[tuple[str, str, int], float], ceilings: Ceilings, num_workers: int) -> StepSpeed:
    spec = str(trial.architecture)
    speed = speeds[spec, trial.setting.name, trial.dim]
    per_example = trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples)
    own = [t for t in plan.trials() if str(t.architecture) == spec and t.seed == plan.protocol.seeds[0]]
    seconds = sum(all_flops(t) / speeds[spec, t.setting.name, t.dim] for t in own) / min(num_workers, len(own))
    return StepSpeed(
        protocol=plan.protocol.name,
        architecture=trial.architecture.label,
        ms=1e3 * per_example * trial.recipe.batch_size / speed,
        examples_per_second=speed / per_example,
        flops_per_second=speed,
        fraction_of_gemm=speed / ceilings.gemm,
        peak_bytes=peak_bytes(trial),
        seconds=seconds,
    )
