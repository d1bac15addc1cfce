"""The forecast of a run: its trials, FLOPs, seconds and memory, and whether it can be computed here at all."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archlab.errors import ArchlabError
from archlab.layers.ops.kernels import require
from archlab.mad.estimate import Compilation, Estimate, compilation, estimate, times_faster_by_kernels
from archlab.mad.memory import check_memory, fitting_population
from archlab.mad.plan import Plan
from archlab.mad.trial import Trial

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The forecast of a run."""

    plan: Plan
    trials: int
    """All trials of the plan."""
    left: int
    """Trials that have to be computed: without those that are stored, and those that stored results make unnecessary."""
    stored: int
    flops: float
    """Training FLOPs (3 x forward) of all trials."""
    cost: Estimate
    """The trials that are left."""
    num_workers: int
    population: int
    """Number of trials that a worker trains together."""
    peak_bytes: int
    """Memory of all workers at their peak."""
    compiling: Compilation | None
    """Cost and gain of compiling the training step; None if no recipe asks for it."""
    times_faster_by_kernels: float | None
    """Speed of eager steps with the kernels that recipes ask for, over that with PyTorch's operations; None if none does."""

    @property
    def not_needed(self) -> int:
        """Trials that need not be computed because another grid point has solved the setting."""
        return self.trials - self.left - self.stored

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        compiling, faster = self.compiling, self.times_faster_by_kernels
        return {
            "protocol": self.plan.protocol.name,
            "architectures": [str(a) for a in self.plan.architectures],
            "settings": self.plan.protocol.num_settings,
            "seeds": list(self.plan.protocol.seeds),
            "trials": self.trials,
            "stored": self.stored,
            "not_needed": self.not_needed,
            "flops": self.flops,
            "flops_left": self.cost.flops,
            "workers": self.num_workers,
            "population": self.population,
            "seconds": round(self.cost.seconds, 1),
            "speeds_measured": self.cost.measured,
            "compiling": compiling and {"seconds": round(compiling.seconds, 1), "saved_seconds": round(compiling.saved, 1)},
            "times_faster_by_kernels": faster and round(faster, 2),
            "peak_bytes": self.peak_bytes,
        }

    def to_frame(self) -> "pd.DataFrame":
        """One row for each entry of :meth:`to_dict`: the name as index, and the column ``value``."""
        import pandas as pd

        return pd.Series(self.to_dict()).to_frame("value")

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(header=False))


def preview_plan(plan: Plan, left: Sequence[Trial], stored: int, num_workers: int, population: int | None) -> Preview:
    """Foresee a run of a plan, of whose trials some are ``left`` to be computed; refuses what cannot be computed here."""
    left = list(left)
    trials = plan.trials()
    check_can_compute(left)
    compiling = compilation(left, num_workers)  # first, while nothing is compiled yet
    faster = times_faster_by_kernels(left)
    population = population or fitting_population(left, num_workers)
    return Preview(
        plan=plan,
        trials=len(trials),
        left=len(left),
        stored=stored,
        flops=sum(trial.flops for trial in trials),
        cost=estimate(left, num_workers),
        num_workers=num_workers,
        population=population,
        peak_bytes=check_memory(left, num_workers, population),
        compiling=compiling,
        times_faster_by_kernels=faster,
    )


def check_can_compute(trials: Sequence[Trial]) -> None:
    """Refuse to compile where there is no compiler, and kernels that are not installed; names the field of the recipe."""
    for name, device in {(trial.recipe.kernels, trial.device) for trial in trials}:
        require(name, device)
    on_cpu = any(trial.recipe.compiled and trial.device == "cpu" for trial in trials)
    if on_cpu and not shutil.which(os.environ.get("CXX", "g++")):
        raise ArchlabError("recipe.compiled=true: there is no C++ compiler here: install g++, or leave it out")
