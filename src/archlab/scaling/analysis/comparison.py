"""Compares architectures at equal compute: the difference of their losses, the compute that it is worth, and where they cross."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri, stdtrit

from archlab.errors import ArchlabError, unknown
from archlab.machine import one_blas_thread
from archlab.scaling.analysis.joint import JointLaw, joint_law, least_loss, outliers, resampled
from archlab.scaling.analysis.precision import estimate
from archlab.scaling.cost import Cost, cost_of
from archlab.scaling.fits import Resampling, StateFit, fit_state
from archlab.scaling.fits.columns import Floats
from archlab.scaling.fits.isoflop import SAME_BUDGET
from archlab.scaling.laws import Estimate, Laws, extrapolation
from archlab.scaling.study import Minima, RunTable
from archlab.scaling.warnings import WarningGroup, grouped

if TYPE_CHECKING:
    import pandas as pd

WITHOUT_LAW = "no law with a floor, so differences by minima and no compute multipliers"
NAMED = 3
"""Architectures that a sentence names beside the reference, where there are many."""
REACH = 10.0
"""Crossings are looked for up to this factor below the smallest and above the largest budget of two architectures."""
UNKNOWN_NOISE = 1.12
"""Widening of intervals for weights that are estimated too, calibrated on simulated studies (benchmarks/coverage.py)."""
FURTHEST = 1e5
"""Multipliers are looked for up to this factor beyond the budgets of an architecture."""


@dataclass(frozen=True)
class Comparison:
    """An architecture beside the reference at one budget, each at its own best size."""

    reference: str
    architecture: str
    budget: float
    extrapolation: float
    """The budget over the largest of the two architectures' runs, or the smallest over it; at most 1 between them."""
    difference: Estimate
    """Loss of the architecture minus loss of the reference, in nats a token: positive where the reference is better."""
    multiplier: Estimate | None
    """Compute that the architecture needs for the reference's loss, over the budget. A bound that is None has no limit within
    a factor of 1e5. None without laws with a floor for both, or where the architecture never reaches that loss."""


@dataclass(frozen=True)
class Crossing:
    """The budget at which the better of two architectures changes."""

    reference: str
    architecture: str
    better_below: str
    """The better one at smaller budgets."""
    budget: Estimate
    """Its interval holds the budgets around it whose difference may be 0; a bound is None where they go on."""


@dataclass(frozen=True)
class StudyComparison:
    """Every architecture of a study beside a reference."""

    reference: str
    rows: tuple[Comparison, ...]
    """By architecture, the best first, and by rising budget."""
    crossings: tuple[Crossing, ...]
    notes: tuple[WarningGroup, ...]
    """Outliers that were left out, architectures without a law, laws that miss a budget."""
    confidence: float

    @property
    def nearest(self) -> tuple[Comparison, ...]:
        """The comparison of each architecture at the largest budget that was trained; none without a shared budget."""
        last = {row.architecture: row for row in self.rows if row.extrapolation <= SAME_BUDGET}
        return tuple(last.values())

    @property
    def headline(self) -> str:
        """The result in a sentence: the differences at the largest budget, and the compute that they are worth."""
        if not self.nearest:
            return ""
        budget = max(row.budget for row in self.nearest)
        worse = sorted((row for row in self.nearest if row.budget == budget), key=lambda row: row.difference.value)
        start, first = f"At {budget:.3g} FLOPs", worse[0]
        doubt = "" if first.difference.low is not None else "; whether by chance, these runs do not tell"
        if any(row.difference.value < 0 for row in worse):
            return f"{start}, against {self.reference}: {_listed(worse)}{doubt}"
        start = f"{start} {self.reference} has"
        unclear = [row.architecture for row in worse if _holds_zero(row.difference)]
        clear = _listed([row for row in worse if not _holds_zero(row.difference)])
        if unclear:
            named = unclear if len(unclear) <= NAMED + 1 else [*unclear[:NAMED], f"{len(unclear) - NAMED} more"]
            close = f"{start} the lowest loss, but is not clearly better than {' and '.join(named)}"
            return f"{close}; {clear}" if clear else close
        if len(worse) == 1:
            return f"{start} a lower loss than {first.architecture}, which {_worth(first)}{doubt}"
        return f"{start} the lowest loss of {len(worse) + 1} architectures; {clear}{doubt}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {"headline": self.headline, **asdict(self)}

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame with a row for each architecture and budget."""
        import pandas as pd

        return pd.json_normalize([asdict(row) for row in self.rows], sep="_")

    def _repr_html_(self) -> str:
        from html import escape

        table: str = self.to_frame().to_html(index=False, float_format="{:.4g}".format)
        return f"<p><b>{escape(self.headline)}</b></p>{table}" + "".join(f"<p>{escape(str(note))}</p>" for note in self.notes)


@one_blas_thread()
def compare_study(
    tables: Mapping[str, RunTable],
    resampling: Resampling,
    *,
    reference: str | None = None,
    flops: Sequence[float] = (),
    costs: Mapping[str, Cost] | None = None,
) -> StudyComparison:
    """Compare the architectures of a study with one of them, by default the one of least loss at the largest shared budget.

    Losses and multipliers are those of the laws with a floor, ``L = E + A / N**alpha + B / D**beta``, at the best size of each
    budget; intervals come from joint resamples of all laws. Where one of two has no law, differences are those of the minima
    of the parabolas, at budgets where both have one. ``costs`` by architecture spare counting them again.

    Raises:
        ArchlabError: the reference is no architecture of the study, there is no other one, or ``flops`` are asked for and no
            architecture beside the reference has a law.
    """
    if reference is not None and reference not in tables:
        raise unknown("architecture", reference, tables)
    if len(tables) < 2:
        raise ArchlabError(f"{len(tables)} architecture in the study: a comparison takes two: train another one")
    found = [("no finished training run", label) for label, table in tables.items() if not table.C.size]
    tables = {label: table for label, table in tables.items() if table.C.size}
    if len(tables) < 2 or (reference is not None and reference not in tables):
        without = ", ".join(label for _, label in found)
        raise ArchlabError(f"no finished training run of {without}: a comparison takes two architectures and the reference")
    laws: dict[str, JointLaw] = {}
    for label, table in tables.items():
        try:
            laws[label] = joint_law(table, cost_of(table) if costs is None else costs[label])
            found += outliers(laws[label])
        except ArchlabError as error:
            found.append((f"{WITHOUT_LAW}: {error}", label))
    notes = grouped(found)
    if resampling.resamples:
        fitted = resampled(list(laws.values()), resampling.resamples, resampling.seed)
        laws = dict(zip(laws, fitted, strict=True))
    ranking = _ranking(tables, laws)
    first = reference if reference is not None else ranking[0]
    rows, crossings = [], []
    for label in ranking:
        if label == first:
            continue
        if first in laws and label in laws:
            pair = laws[first], laws[label]
            rows += _by_laws(*pair, flops, resampling)
            crossings += _crossings(*pair, resampling)
        else:
            rows += _by_minima(tables[first], tables[label], resampling)
    if flops and not any(label in laws for label in tables if label != first and first in laws):
        raise ArchlabError(f"flops: no two architectures have laws to extrapolate: {'; '.join(map(str, notes))}")
    for label in ranking:
        if label != first and label not in {row.architecture for row in rows}:
            fix = (
                "compare at budgets of your own, by flops (--flops)"
                if {first, label} <= laws.keys()
                else "train more sizes at budgets of both"
            )
            found.append((f"no budget within the runs of {first} too, so no difference: {fix}", label))
    return StudyComparison(first, tuple(rows), tuple(crossings), grouped(found), resampling.confidence)


def _ranking(tables: Mapping[str, RunTable], laws: Mapping[str, JointLaw]) -> list[str]:
    """The architectures by rising loss at the largest budget that several share; those without one follow."""

    def loss(label: str, budget: float) -> float | None:
        if label in laws:
            law = laws[label]
            within = extrapolation(law.table, budget) <= SAME_BUDGET
            return float(least_loss(law, law.p[None], np.array([budget]))[0, 0]) if within else None
        minimum = tables[label].minima.get(budget)
        return None if minimum is None else minimum.loss

    number = Counter(budget for label, table in tables.items() for budget in np.unique(table.budget).tolist())
    for budget in sorted((b for b, count in number.items() if count > 1), reverse=True):
        known = {label: at for label in tables if (at := loss(label, budget)) is not None}
        if len(known) > 1:
            return [*sorted(known, key=known.__getitem__), *(label for label in tables if label not in known)]
    return list(tables)


def _by_laws(first: JointLaw, second: JointLaw, flops: Sequence[float], resampling: Resampling) -> list[Comparison]:
    trained = np.unique(np.concatenate([first.table.budget, second.table.budget]))
    beyond = {float(c): max(extrapolation(one.table, float(c)) for one in (first, second)) for c in (*trained, *flops)}
    budgets = np.array(sorted(c for c, factor in beyond.items() if factor <= SAME_BUDGET or c in flops))
    if not len(budgets):
        return []
    wanted, ours = _losses(first, budgets), _losses(second, budgets)
    multipliers = _reaching(second, wanted) - np.log(budgets)
    rows = []
    for column, budget in enumerate(budgets.tolist()):
        difference = _interval(ours[:, column] - wanted[:, column], first, second, resampling)
        found = _interval(multipliers[:, column], first, second, resampling)
        with np.errstate(over="ignore"):
            value, low, high = (None if x is None else float(np.exp(x)) for x in (found.value, found.low, found.high))
        multiplier = None if value is None or not np.isfinite(value) else Estimate(value, low, _finite(high))
        names = first.table.label, second.table.label
        rows.append(Comparison(*names, budget, beyond[budget], difference, multiplier))
    return rows


def _losses(law: JointLaw, budgets: Floats) -> Floats:
    """Least losses (1 + K, m): by the law itself, then by its resamples."""
    return least_loss(law, np.concatenate([law.p[None], law.resamples]), budgets)


def _reaching(law: JointLaw, losses: Floats) -> Floats:
    """Logarithms of the budgets at which a law and its resamples reach the losses (1 + K, m); infinite where they do not."""
    low, high = float(law.table.budget.min()), float(law.table.budget.max())
    budgets = np.geomspace(low / FURTHEST, high * FURTHEST, 120)
    floors = np.exp(np.append(law.p[2], law.resamples[:, 2]))[:, None]
    with np.errstate(all="ignore"):
        known, wanted = np.log(_losses(law, budgets) - floors), np.log(losses - floors)
    wanted = np.where(np.isnan(wanted), -np.inf, wanted)  # below the floor
    rows = zip(wanted, known, strict=True)
    logs = np.log(budgets)[::-1]
    return np.stack([np.interp(at, curve[::-1], logs, left=np.inf, right=-np.inf) for at, curve in rows])


def _interval(values: Floats, first: JointLaw, second: JointLaw, resampling: Resampling) -> Estimate:
    """Percentiles of the resamples behind the value, at distances widened from the normal to Student's distribution."""
    value, resamples = float(values[0]), values[1:]
    freedom = min(first.freedom, second.freedom)
    if not len(resamples) or freedom < 1 or not np.isfinite(value):
        return Estimate(value, None, None)
    upper = (1 + resampling.confidence) / 2
    widening = UNKNOWN_NOISE * float(stdtrit(freedom, upper) / ndtri(upper))
    ends = np.quantile(resamples, [1 - upper, upper], method="nearest")
    low, high = (value + widening * (float(end) - value) for end in ends)
    return Estimate(value, low, high)


def _crossings(first: JointLaw, second: JointLaw, resampling: Resampling) -> list[Crossing]:
    both = np.concatenate([first.table.budget, second.table.budget])
    budgets = np.geomspace(both.min() / REACH, both.max() * REACH, 80)
    differences = _losses(second, budgets) - _losses(first, budgets)
    line = differences[0]
    bands = [_interval(column, first, second, resampling) for column in differences.T]
    zero = np.array([_holds_zero(band) for band in bands])
    names, found = (first.table.label, second.table.label), []
    for left in np.flatnonzero(np.sign(line[:-1]) * np.sign(line[1:]) < 0):
        share = line[left] / (line[left] - line[left + 1])
        at = float(np.exp(np.log(budgets[left]) + share * np.log(budgets[left + 1] / budgets[left])))
        low = high = None
        if bands[0].low is not None:
            below, above = np.flatnonzero(~zero[: left + 1]), np.flatnonzero(~zero[left + 1 :])
            low = float(budgets[below[-1]]) if len(below) else None
            high = float(budgets[left + 1 + above[0]]) if len(above) else None
        found.append(Crossing(*names, names[0] if line[left] > 0 else names[1], Estimate(at, low, high)))
    return found


def _by_minima(first: RunTable, second: RunTable, resampling: Resampling) -> list[Comparison]:
    rows = []
    for budget in sorted(first.minima.keys() & second.minima.keys()):
        difference = estimate(partial(_difference, budget=budget), [first, second], resampling)
        rows.append(Comparison(first.label, second.label, budget, 1.0, difference, None))
    return rows


def _difference(minima: list[Minima], budget: float) -> float:
    return minima[1][budget].loss - minima[0][budget].loss


def _holds_zero(estimate: Estimate) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= 0 <= estimate.high


def _finite(bound: float | None) -> float | None:
    return bound if bound is not None and np.isfinite(bound) else None


def _listed(rows: Sequence[Comparison]) -> str:
    """The rows of a sentence, of many the first and their number."""
    shown = rows if len(rows) <= NAMED + 1 else rows[:NAMED]
    more = [f"{len(rows) - NAMED} more are below"] if len(shown) < len(rows) else []
    return "; ".join([*map(_beside, shown), *more])


def _beside(row: Comparison) -> str:
    return f"{row.architecture} {_worth(row)}"


def _worth(row: Comparison) -> str:
    """The compute that the architecture needs for the loss of the reference."""
    if row.multiplier is None:
        side = "behind" if row.difference.value >= 0 else "ahead"
        return f"is {abs(row.difference.value):.3g} nats {side}"
    return f"needs {multiplier_text(row.multiplier, '.3g')} times the compute"


def multiplier_text(found: Estimate, digits: str) -> str:
    """Write a multiplier with its interval: ``1.5 (1.4–1.7)``, or ``1.5 (at least 1.4)`` where it has no upper bound."""
    if found.low is None:
        return f"{found.value:{digits}}"
    if found.high is None:
        return f"{found.value:{digits}} (at least {found.low:{digits}})"
    return f"{found.value:{digits}} ({found.low:{digits}}–{found.high:{digits}})"


def state_law(laws: Sequence[Laws], resampling: Resampling) -> StateFit | str:
    """Fit compute-optimal perplexity over the state at the optimum, over all architectures; or say why there is no fit."""
    points = [(*point, one.runs.label) for one in laws for point in one.state_points()]
    state, perplexity, group = zip(*points, strict=True) if points else ((), (), ())
    try:
        return fit_state(perplexity=perplexity, state=state, group=group, resampling=resampling)
    except ArchlabError as error:
        return str(error)
