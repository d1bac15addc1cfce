"""The speed of training steps on this machine beside its ceilings, the time that every protocol takes, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from archlab.architectures import Architecture
from archlab.errors import ArchlabError
from archlab.fields import Workers, checked
from archlab.jobs.executor import Executor, make_executor
from archlab.machine import Ceilings, Device
from archlab.mad.estimate import all_flops, cheapest, family, kind, measure, measure_jobs, remember
from archlab.mad.memory import peak_bytes
from archlab.mad.plan import Plan, make_plan
from archlab.mad.profile import Profile, profile_trials
from archlab.mad.protocol import load_protocol, protocol_names
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
    profiles: tuple[Profile, ...] = ()
    """Empty unless asked for."""

    def to_frame(self) -> pd.DataFrame:
        """One row for each protocol and architecture."""
        import pandas as pd

        return pd.DataFrame([asdict(step) for step in self.steps])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        steps, profiles = ([asdict(one) for one in some] for some in (self.steps, self.profiles))
        ceilings = vars(self.ceilings)
        return {"workers": self.num_workers, "device": self.device, "ceilings": ceilings, "steps": steps, "profiles": profiles}

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.4g}".format))


@checked
def bench(
    specs: Sequence[str | Architecture] = DEMO,
    protocols: Sequence[str] | None = None,
    *,
    device: Device = "cpu",
    executor: str = "local",
    workers: Workers | None = None,
    profile: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Bench:
    """Measure this machine's ceilings and the training steps of architectures, and remember these; medians over all workers.

    Args:
        specs: catalogue names, specs or values.
        protocols: names or files; by default those of the package.
        device: where to measure.
        executor: where the workers run.
        workers: number of workers; by default one a core, or one a GPU.
        profile: find where the processor time goes too, by one trial of each task; on a CPU only.
        on_progress: called with the number of kinds of step that are measured, and of all.

    Raises:
        ArchlabError: something cannot be met as asked.
    """
    if profile and device != "cpu":
        raise ArchlabError(f"profile=True: device={device!r}: only a CPU is profiled: leave out the profile or the device")
    plans = [make_plan(load_protocol(name), specs, device) for name in protocols or protocol_names()]
    kinds: dict[str, Trial] = {}
    for plan in plans:
        for trial in cheapest(plan.trials()).values():
            kinds.setdefault(kind(trial), trial)
    speeds: dict[str, float] = {}
    tell = on_progress or (lambda done, total: None)
    pool: Executor[Any, Any, Any] = make_executor(measure_jobs, workers, device=device, name=executor)
    with pool:
        tell(0, len(kinds))
        found = measure(device, pool)
        ceilings = Ceilings(gemm=median(one.gemm for one in found), copy=median(one.copy for one in found))
        for name, trial in kinds.items():
            speeds[name] = median(measure(trial, pool))
            tell(len(speeds), len(kinds))
    remember(speeds)
    steps = [step for plan in plans for step in _steps(plan, speeds, ceilings, pool.num_workers)]
    return Bench(pool.num_workers, device, ceilings, tuple(steps), tuple(_profiles(plans)) if profile else ())


def _steps(plan: Plan, by_kind: dict[str, float], ceilings: Ceilings, num_workers: int) -> Iterator[StepSpeed]:
    trials = plan.trials()
    speeds = {name: by_kind[kind(trial)] for name, trial in cheapest(trials).items()}
    shown: dict[Architecture, Trial] = {}
    for trial in trials:
        if trial.setting.name == SHOWN:
            shown.setdefault(trial.architecture, trial)
    for architecture, trial in shown.items():
        speed = speeds[family(trial)]
        per_example = trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples)
        own = [t for t in trials if t.architecture == architecture and t.seed == plan.protocol.seeds[0]]
        yield StepSpeed(
            protocol=plan.protocol.name,
            architecture=architecture.label,
            ms=1e3 * per_example * trial.recipe.batch_size / speed,
            examples_per_second=speed / per_example,
            flops_per_second=speed,
            fraction_of_gemm=speed / ceilings.gemm,
            peak_bytes=peak_bytes(trial),
            seconds=sum(all_flops(t) / speeds[family(t)] for t in own) / min(num_workers, len(own)),
        )


def _profiles(plans: Sequence[Plan]) -> Iterator[Profile]:
    for plan in plans:
        trials = cheapest(plan.trials()).values()
        for architecture in dict.fromkeys(trial.architecture for trial in trials):
            own = [trial for trial in trials if trial.architecture == architecture]
            yield profile_trials(plan.protocol.name, architecture.label, own)
