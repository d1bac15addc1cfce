"""The fits of a study: laws, comparisons, the state law, the cost of other sizes, the best fraction of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from archlab.errors import ArchlabError
from archlab.format import human
from archlab.scaling.analysis.comparison import StudyComparison, compare_study, state_law
from archlab.scaling.analysis.hybridisation import Sweep, sweeps
from archlab.scaling.analysis.off_optimal import OffOptimal, OverTraining, off_optimal, over_training
from archlab.scaling.cost import Cost, power_laws
from archlab.scaling.fits import IsoFlopFit, Resampling, StateFit
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.laws import Law, Laws, fit_laws
from archlab.scaling.study import Study, StudyRun
from archlab.scaling.warnings import WarningGroup, grouped

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyFit:
    """The fits of a study."""

    study: Study
    resampling: Resampling
    laws: tuple[Laws, ...]
    """By architecture, in the study's order."""
    without_laws: dict[str, str]
    """Reasons by architecture that has too few finished training runs for any law."""
    comparison: StudyComparison | None
    """Every architecture beside a reference, by default the best one at the largest shared budget; None if there is one
    architecture."""
    state: StateFit | str
    """The state-optimal law, or the reason why there is none."""
    off_optimal: tuple[OffOptimal, ...]
    """Smaller models of every architecture at every budget with a minimum."""
    over_training: dict[str, OverTraining | str]
    """The over-training law by architecture, or the reason why there is none."""
    sweeps: tuple[Sweep, ...]
    """Sweeps over the fraction of attention layers."""

    @property
    def headline(self) -> str:
        """The result in a sentence: the best architecture at the largest budget, and the compute that the others need."""
        if self.comparison is not None and self.comparison.headline:
            return self.comparison.headline
        minima = sum(len(laws.runs.minima) for laws in self.laws)
        groups = sum(len(np.unique(laws.runs.budget)) for laws in self.laws)
        return f"{minima} of {groups} IsoFLOP groups have their best size bracketed"

    @property
    def warnings(self) -> tuple[WarningGroup, ...]:
        """Everything that limits the fits, by cause; what is missing comes first."""
        notes = () if self.comparison is None else self.comparison.notes
        return grouped(
            [
                *self.study.gaps,
                *missing_laws(self.without_laws),
                *self._without_intervals(),
                *((note.cause, case) for note in notes for case in note.cases),
                *(limit for laws in self.laws for limit in limits(laws)),
            ]
        )

    def _without_intervals(self) -> Iterator[tuple[str, str]]:
        fix = "plan more sizes, budgets or seeds" + ("" if self.resampling.method == "jackknife" else ", or take a jackknife")
        for one in self.laws if self.resampling.resamples else ():
            methods = [law.method for law in one.by_method.values() if law.largest.no_interval]
            if methods:
                which = "any method" if len(methods) == len(one.by_method) else " and ".join(methods)
                cause = f"no intervals for {which}: too few training runs: {fix}"
                yield cause, f"{one.runs.label} has {len(one.runs.loss)}"

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame with a row for each law: exponents, and the optimum at the largest budget, with intervals."""
        import pandas as pd

        names, bounds = ("size_exponent", "tokens_exponent", "flops", "size", "tokens", "loss"), ("value", "low", "high")
        rows = []
        for one in self.laws:
            for law in one.by_method.values():
                cells = {f"{x}_{bound}": getattr(getattr(law.largest, x), bound, None) for x in names for bound in bounds}
                rows.append({"architecture": one.runs.label, "method": law.method, **cells})
        return pd.DataFrame(rows).rename(columns=lambda name: name.removesuffix("_value"))

    def _repr_html_(self) -> str:
        from html import escape

        table: str = self.to_frame().to_html(index=False, float_format="{:.4g}".format)
        return f"<p><b>{escape(self.headline)}</b></p>{table}" + "".join(f"<p>{escape(str(one))}</p>" for one in self.warnings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        state: Any = self.state
        if isinstance(state, StateFit):
            low, high = (None, None) if state.interval is None else (float(state.interval.low), float(state.interval.high))
            state = {"exponent": state.exponent, "low": low, "high": high, "offsets": state.offsets}
        return {
            "headline": self.headline,
            "parameters": self.study.parameters,
            "confidence": self.resampling.confidence,
            "resamples": self.resampling.resamples,
            "intervals": self.resampling.method,
            "warnings": [asdict(one) for one in self.warnings],
            "architectures": {one.runs.label: _laws_dict(one) for one in self.laws},
            "without_laws": self.without_laws,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "sweeps": [asdict(sweep) for sweep in self.sweeps],
            "off_optimal": [asdict(model) for model in self.off_optimal],
            "over_training": {label: _or_refused(law) for label, law in self.over_training.items()},
            "state": state,
        }


def fit_study(
    study: Study,
    resampling: Resampling,
    on_method: Callable[[], object] | None = None,
    *,
    asymmetric: bool = False,
    reference: str | None = None,
) -> StudyFit:
    """Fit and compare all architectures of a study; ``on_method`` is called after each method of each architecture.

    The ``reference`` of the comparison is by default the best architecture at the largest shared budget; one without a law is
    refused.
    """
    laws, without_laws = fit_architectures(study, resampling, on_method, asymmetric=asymmetric)
    if reference in without_laws:
        raise ArchlabError(f"reference {reference} has no law: {without_laws[reference]}")
    tables = [one.runs for one in laws]
    costs = {one.runs.label: one.cost for one in laws}
    by_label = {table.label: table for table in tables}
    comparison = compare_study(by_label, resampling, reference=reference, costs=costs) if len(tables) > 1 else None
    return StudyFit(
        study=study,
        resampling=resampling,
        laws=laws,
        without_laws=without_laws,
        comparison=comparison,
        state=state_law(laws, resampling),
        off_optimal=tuple(model for table in tables for model in off_optimal(table, resampling)),
        over_training={table.label: over_training(table) for table in tables},
        sweeps=sweeps(tables, resampling),
    )


def fit_architectures(
    study: Study, resampling: Resampling, on_method: Callable[[], object] | None = None, *, asymmetric: bool = False
) -> tuple[tuple[Laws, ...], dict[str, str]]:
    """The laws of every architecture, and the reasons of those that have none; refuses a study without two finished sizes."""
    laws, without_laws = [], {}
    for label, table in study.tables.items():
        try:
            laws.append(fit_laws(table, resampling, on_method, asymmetric=asymmetric))
        except ArchlabError as error:
            without_laws[label] = str(error)
    if not laws:
        raise ArchlabError("; ".join(map(str, grouped([*study.gaps, *missing_laws(without_laws)]))))
    return tuple(laws), without_laws


def missing_laws(without_laws: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield why architectures have no laws at all, each as a cause and a case."""
    return ((f"no laws: {reason}", label) for label, reason in without_laws.items())


def limits(laws: Laws) -> Iterator[tuple[str, str]]:
    """Yield what limits an architecture's laws, each as a cause and a case."""
    label, runs = laws.runs.label, laws.runs
    budgets = len(runs.minima) + len(runs.without_minimum)
    for method, reason in laws.no_laws.items():
        if method == "isoflop" and len(runs.minima) < 2 and runs.without_minimum:  # its causes follow, by budget
            reason = f"{len(runs.minima)} of {budgets} budgets have a minimum, two are needed"
        yield f"no law by {method}: {reason}", label
    for budget, found in runs.without_minimum.items():
        yield f"{found.cause}, so no minimum", f"{label} at {budget:.3g}{_advice(found.add, laws.cost)}"
    for budget, minimum in runs.minima.items():
        if minimum.wide is not None:
            yield (
                "a parabola is biased where sizes are so far from the minimum",
                f"{label} at {budget:.3g}: {minimum.wide:.3g} times",
            )
        if minimum.short:
            where = f"{label} at {budget:.3g}"
            yield f"the sizes {minimum.short} the minimum reach less than half as far as the others: add some", where
    for run in runs.censored:
        row = run.row()
        imported = isinstance(run, ImportedRun)
        cause = "training runs without a loss, left out" if imported else "diverged training runs, left out whatever the loss"
        yield cause, f"{label}: {_size(row)} at {row['budget']:.3g}"
    if laws.cost.doubt:
        yield "FLOPs a token of the training runs do not agree", f"{label}: {laws.cost.source}, {laws.cost.doubt}"
    if laws.disagreement:
        yield "methods disagree: trust none before you know why", f"{label}: {laws.disagreement}"


def _advice(add: tuple[float, float] | None, cost: Cost) -> str:
    """Name sizes to add: two that can be built, where the spec tells which these are."""
    if add is None:
        return ""
    near, far = add
    if not cost.buildable:
        return f": add sizes from {human(min(add))} to {human(max(add))} parameters"
    sizes = np.array(cost.N)
    beyond = sizes[sizes > near / 2 * (1 + 1e-9)] if far > near else sizes[sizes < near * 2 * (1 - 1e-9)][::-1]
    if not len(beyond):
        return ": no smaller size can be built, so train larger budgets"
    nearest = [int(beyond[np.abs(np.log(beyond / wanted)).argmin()]) for wanted in add]
    return f": add {' and '.join(f'{size:,}' for size in dict.fromkeys(nearest))} parameters"


def _laws_dict(laws: Laws) -> dict[str, Any]:
    return {
        "training_runs": [_model_dict(model) for model in laws.runs.models],
        "censored": [_model_dict(model) for model in laws.runs.censored],
        "cost": asdict(laws.cost),
        "methods": {method: _law_dict(law) for method, law in laws.by_method.items()},
        "refused": laws.refused,
        "disagreement": laws.disagreement,
        "warnings": [asdict(one) for one in grouped(limits(laws))],
    }


def _law_dict(law: Law) -> dict[str, Any]:
    values = {name: _or_refused(getattr(law, name)) for name in ("fit", "largest", "hold_out")}
    values["frontier"] = asdict(power_laws(law.frontier))
    if isinstance(law.fit, IsoFlopFit):
        values["by_window"] = {f"{window:g}": exponent for window, exponent in law.by_window.items()}
        values["fit"]["refused"] = {f"{budget:.6g}": str(reason) for budget, reason in law.fit.refused.items()}
    return values


def _or_refused(found: Any) -> dict[str, Any]:
    """A dataclass as a dictionary; of a text, the reason why there is none."""
    return {"refused": found} if isinstance(found, str) else asdict(found)


def _size(row: dict[str, Any]) -> str:
    return f"width {row['dim']}" if row["dim"] is not None else f"{row['params']:.3g} parameters"


def _model_dict(model: StudyRun) -> dict[str, Any]:
    names = ("key", "dim", "budget", "flops", "params", "params_non_embedding", "tokens", "state", "seed", "loss")
    row = model.row()
    return {name: row[name] for name in names} | {"reason": model.reason}
