"""Learning rates tuned for each architecture: a sweep at small budgets, and its factor on the rule for all other sizes."""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.jobs.policy import Policy
from archlab.scaling.ladder import central_params
from archlab.scaling.result import LMResult
from archlab.scaling.runner import in_turn
from archlab.scaling.store import StudyStore
from archlab.scaling.training_plan import LMRun, Plan
from archlab.scaling.trial import LMTrial
from archlab.store.database import shown
from archlab.store.record import SETTLED

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = 2
"""The smallest budgets of a plan, at which rates are tuned."""
DOUBLINGS = 4
"""How often the rate of the plan may be doubled or halved until the best one is bracketed."""
_Sweep: TypeAlias = tuple[Any, ...]
Rule = Callable[[LMRun], float | None]
"""The learning rate that a rule has for a training run; None where it has none."""


@dataclass(frozen=True, kw_only=True)
class TunedRate:
    """The best learning rate of an architecture at one budget."""

    label: str
    budget: float
    params: int
    losses: Mapping[float, float | None]
    """Loss by learning rate, in nats a token, a mean over seeds; None where a training run diverged."""
    best: float
    """The trained rate with the least loss."""
    rate: float
    """The minimum of a parabola in the logarithm of the rate, through the best one and its neighbours; the best trained one
    without two neighbours that have a loss."""
    bracketed: bool
    """Whether a smaller and a larger rate than the best were trained."""
    rule: float | None
    """The rate by the rule."""

    @property
    def at_half(self) -> float | None:
        """Loss at half the best trained rate, minus the least, in nats a token; None if it diverged or was not trained."""
        return self._excess(self.best / 2)

    @property
    def at_twice(self) -> float | None:
        """Loss at twice the best trained rate, minus the least, in nats a token; None if it diverged or was not trained."""
        return self._excess(self.best * 2)

    def _excess(self, rate: float) -> float | None:
        loss, least = self.losses.get(rate), self.losses[self.best]
        return None if loss is None or least is None else loss - least

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return asdict(self) | {"losses": list(self.losses.items()), "at_half": self.at_half, "at_twice": self.at_twice}


@dataclass(frozen=True)
class Tuning:
    """The best learning rates of architectures, and what follows for their other sizes."""

    rates: tuple[TunedRate, ...]
    """By architecture and budget."""

    @property
    def bracketed(self) -> bool:
        """Whether every best rate lies between others."""
        return all(one.bracketed for one in self.rates)

    @property
    def factors(self) -> dict[str, float]:
        """The best rate over the rule's, by architecture: the geometric mean of its budgets, to three digits.

        An ArchlabError names an architecture whose best rate is not bracketed, or that was tuned in several ways.
        """
        logs: dict[str, list[float]] = defaultdict(list)
        known: set[tuple[str, float]] = set()
        for one in self.rates:
            if (one.label, one.budget) in known:
                raise ArchlabError(
                    f"{one.label}: tuned several times at {one.budget:.3g} FLOPs, with other sizes, data or recipes: "
                    "give each tuning a store of its own"
                )
            known.add((one.label, one.budget))
            if not one.bracketed:
                raise ArchlabError(
                    f"{one.label}: the best learning rate at {one.budget:.3g} FLOPs, {one.best:.3g}, is at the edge of those "
                    "tried: `archlab scale tune` goes on, or plan with another learning_rate"
                )
            if one.rule is not None:
                logs[one.label].append(math.log(one.rate / one.rule))
        return {label: float(f"{math.exp(math.fsum(some) / len(some)):.3g}") for label, some in logs.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {"factors": self.factors if self.bracketed else None, "rates": [one.to_dict() for one in self.rates]}

    def to_frame(self) -> "pd.DataFrame":
        """Return a data frame with a row for each architecture and budget."""
        import pandas as pd

        return pd.DataFrame([one.to_dict() for one in self.rates]).drop(columns="losses")

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.4g}".format))


def sweep(plan: Plan) -> list[LMRun]:
    """List the training runs of all rates that may be tried: those of a plan at its smallest budgets, at the size nearest the
    centre, with their rate doubled and halved."""
    runs = []
    for label in dict.fromkeys(run.label for run in plan.runs):
        own = [run for run in plan.runs if run.label == label]
        for budget in sorted({run.budget for run in own})[:BUDGETS]:
            group = [run for run in own if run.budget == budget]
            centre = min((run.params for run in group), key=lambda n: abs(math.log(n / central_params(budget))))
            runs += [
                replace(run, learning_rate=run.learning_rate * 2.0**n)
                for n in range(-DOUBLINGS, DOUBLINGS + 1)
                for run in group
                if run.params == centre
            ]
    return runs


class Bracketing(Policy[LMTrial, LMResult]):
    """Starts the rate in the middle of each sweep and its neighbours, then goes on beyond the edge while that is the best."""

    def __init__(self, trials: Iterable[LMTrial]) -> None:
        """Prepare for a run of these trials, the stored ones included."""
        self._sweeps: dict[_Sweep, dict[float, list[LMTrial]]] = defaultdict(lambda: defaultdict(list))
        for trial in sorted(trials, key=lambda trial: trial.run.learning_rate):
            self._sweeps[_sweep_of(trial)][trial.run.learning_rate].append(trial)
        self._losses: dict[str, float] = {}

    @override
    def observe(self, job: LMTrial, result: LMResult) -> list[LMTrial]:
        self._losses[job.key] = _or_infinite(result.loss)
        return self._unneeded(job)

    @override
    def failed(self, job: LMTrial) -> list[LMTrial]:
        self._losses[job.key] = math.inf
        return self._unneeded(job)

    @override
    def order(self, waiting: Mapping[str, LMTrial], running: Collection[LMTrial]) -> list[LMTrial]:
        wanted = [trial for rates in self._sweeps.values() for trial in self._wanted(rates) if trial.key in waiting]
        return in_turn(wanted, running)

    def _unneeded(self, job: LMTrial) -> list[LMTrial]:
        rates = self._sweeps[_sweep_of(job)]
        if self._wanted(rates):
            return []
        return [trial for trials in rates.values() for trial in trials if trial.key not in self._losses]

    def _wanted(self, rates: Mapping[float, Sequence[LMTrial]]) -> list[LMTrial]:
        """The trials without a result that the sweep needs next; empty once the best rate is bracketed, or all are tried."""
        trials = list(rates.values())
        low = high = len(trials) // 2
        low, high = max(low - 1, 0), min(high + 1, len(trials) - 1)
        while True:
            if missing := [trial for some in trials[low : high + 1] for trial in some if trial.key not in self._losses]:
                return missing
            losses = [math.fsum(self._losses[trial.key] for trial in some) for some in trials[low : high + 1]]
            best = losses.index(min(losses))
            if best == 0 and low > 0:
                low -= 1
            elif best == high - low and high < len(trials) - 1:
                high += 1
            else:
                return []


def read_tuning(store: str | os.PathLike[str], rule: Rule, keys: Iterable[str] | None = None) -> Tuning:
    """Find the best rates in a store, by default of all its training runs; sweeps without a finished one are left out.

    An ArchlabError says that there are none.
    """
    sweeps: dict[_Sweep, dict[float, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    runs: dict[_Sweep, LMRun] = {}
    with StudyStore(store, create=False) as opened:
        for record in opened.records(keys=keys, statuses=SETTLED):
            assert record.result is not None
            run = record.job.run
            runs[_sweep_of(record.job)] = run
            sweeps[_sweep_of(record.job)][run.learning_rate][run.seed] = _or_infinite(record.result.loss)
    found = []
    for key, by_rate in sweeps.items():
        seeds = set().union(*by_rate.values())
        whole = {rate: math.fsum(some.values()) / len(some) for rate, some in sorted(by_rate.items()) if some.keys() == seeds}
        if min(whole.values(), default=math.inf) < math.inf:
            found.append(_tuned(runs[key], whole, rule(runs[key])))
    if not found:
        raise ArchlabError(
            f"{shown(store)} has no tuned learning rate: `archlab scale tune PLAN --store {shown(store)}` finds some"
        )
    return Tuning(tuple(sorted(found, key=lambda one: (one.label, one.budget))))


def _tuned(run: LMRun, losses: Mapping[float, float], rule: float | None) -> TunedRate:
    best = min(losses, key=lambda rate: losses[rate])
    below, least, above = (losses.get(rate, math.inf) for rate in (best / 2, best, best * 2))
    shift = (
        (below - above) / (2 * (below - 2 * least + above)) if max(below, above) < math.inf and below + above > 2 * least else 0
    )
    return TunedRate(
        label=run.label,
        budget=run.budget,
        params=run.params,
        losses={rate: None if loss == math.inf else loss for rate, loss in losses.items()},
        best=best,
        rate=best * 2**shift,
        bracketed=best / 2 in losses and best * 2 in losses,
        rule=rule,
    )


def _sweep_of(trial: LMTrial) -> _Sweep:
    """Equal for trials that differ in learning rate and seed only."""
    run = replace(trial.run, learning_rate=1.0, seed=0, epochs=None)
    return run, trial.recipe, trial.device


def _or_infinite(loss: float | None) -> float:
    return math.inf if loss is None else loss
