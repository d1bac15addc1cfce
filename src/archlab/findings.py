"""Tests published findings again: trains what a store lacks, measures, and says what that supports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from archlab.api import default_listeners, run
from archlab.corpora import prepare
from archlab.designs.finding import USES, Experiment, Finding, SizeName, load_finding
from archlab.designs.measures import measure
from archlab.designs.verdict import CONFIDENCE, Quantity, Verdict, together
from archlab.errors import ArchlabError
from archlab.fields import Workers, checked, naming, read_fields
from archlab.jobs.events import Listener
from archlab.mad.scores import Scores
from archlab.scaling.api import plan as plan_study
from archlab.scaling.api import train
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.store import StudyStore
from archlab.scaling.study import Study, read_study
from archlab.scaling.training_plan import Plan
from archlab.scaling.trial import LMTrial
from archlab.store.record import SETTLED

if TYPE_CHECKING:
    import pandas as pd

STORE = "findings.db"
"""A store of its own: a finding's language models are no part of a user's study."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A finding, what was measured of it, and the verdict."""

    finding: Finding
    size: SizeName
    quantities: tuple[Quantity, ...]
    trials: int
    """Trials that the measurement rests on."""
    training_runs: int
    """Language models likewise."""
    cpu_seconds: float
    """Processor time of those trials, and training time of those models, whenever they were trained."""

    @property
    def verdict(self) -> Verdict:
        """Supported if every quantity supports the claim, not supported if one does not."""
        return together(quantity.verdict for quantity in self.quantities)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("name", "claim", "source", "notes", "test", "architectures")
        return {
            **{name: getattr(self.finding, name) for name in names},
            "size": self.size,
            "verdict": self.verdict,
            "confidence": CONFIDENCE,
            "quantities": [_quantity(one) for one in self.quantities],
            "trials": self.trials,
            "training_runs": self.training_runs,
            "cpu_seconds": self.cpu_seconds,
        }

    def to_frame(self) -> pd.DataFrame:
        """One row for each quantity."""
        import pandas as pd

        return pd.DataFrame([_quantity(one) for one in self.quantities])

    def _repr_html_(self) -> str:
        from html import escape

        table: str = self.to_frame().to_html(index=False, float_format="{:.4g}".format)
        return f"<p>{escape(self.finding.claim)} ({escape(self.finding.source)})</p><p><b>{self.verdict}</b></p>{table}"


def _quantity(quantity: Quantity) -> dict[str, Any]:
    """A quantity with its verdict; an end of the claimed region that is open is None."""
    ends = {name: end if isfinite(end) else None for name, end in quantity.region._asdict().items()}
    return {**{name: value for name, value in vars(quantity).items() if name != "region"}, **ends, "verdict": quantity.verdict}


@checked
def reproduce(
    finding: str,
    *,
    size: SizeName = "laptop",
    store: str | os.PathLike[str] = STORE,
    executor: str = "local",
    workers: Workers | None = None,
    listeners: Sequence[Listener] | None = None,
) -> Reproduction:
    """Test a published finding: train what the store lacks, and judge the claim by what is measured.

    After an interruption the same call does the rest.

    Args:
        finding: one of the package by name, or the path of a YAML file, see :mod:`archlab.designs.finding`.
        size: ``"laptop"``, minutes to an hour on two cores, or ``"smoke"``, seconds that show that it runs.
        store: where results are and go: a path or a database URL.
        executor: where workers run.
        workers: number of workers; by default one a core.
        listeners: called with every event of :mod:`archlab.jobs.events`; by default a live view on standard error.

    Raises:
        ArchlabError: there is no such finding, or it is wrong; nothing has been computed.
        KeyboardInterrupt: after Ctrl-C; what is finished is in the store.
    """
    chosen = load_finding(finding)
    experiment = chosen.experiment(size)
    protocol = experiment.chosen() if "protocol" in USES[chosen.test] else None
    planned, recipe = None, LMRecipe()
    if "ladder" in USES[chosen.test]:
        with naming(f"finding {finding}: experiments.{size}"):
            planned, recipe = _plan(chosen, experiment), read_fields(LMRecipe, experiment.recipe, "recipe")
    heard = default_listeners(listeners)
    options: dict[str, Any] = {"store": store, "executor": executor, "workers": workers, "listeners": heard}
    scores: Scores | None = None
    study: Study | None = None
    seconds, trials, runs = 0.0, 0, 0
    if protocol is not None:
        scores = run(chosen.labelled(protocol), protocol, **options)
        results = [record.result for record in scores.records if record.result is not None]
        seconds, trials = sum(result.cpu_seconds for result in results), len(results)
    if planned is not None:
        study = _study(planned, recipe, options)
        models = study.to_frame()
        seconds, runs = seconds + float(models["seconds"].sum()), len(models)
    return Reproduction(
        finding=chosen,
        size=size,
        quantities=tuple(measure(chosen, scores, study)),
        trials=trials,
        training_runs=runs,
        cpu_seconds=seconds,
    )


def _plan(finding: Finding, experiment: Experiment) -> Plan:
    """The training runs of a finding's language models."""
    values = dict(experiment.ladder)
    return plan_study(dict(finding.architectures), values.pop("name", "quick"), seeds=experiment.seeds, **values)


def _study(plan: Plan, recipe: LMRecipe, options: dict[str, Any]) -> Study:
    """Train the language models of a plan, and read them, whatever else the store holds."""
    train(plan, recipe=recipe, keep="none", **options)
    corpus = prepare(plan.runs[0].corpus, plan.runs[0].tokenizer)
    trials = {trial.key: trial for trial in (LMTrial(one, recipe).on(corpus) for one in plan.runs)}
    with StudyStore(options["store"], create=False) as opened:
        # Another finding may have trained them under other labels.
        records = [replace(one, job=trials[one.key]) for one in opened.records(trials, SETTLED)]
    if not records:
        raise ArchlabError("no language model was trained to its end: the same command tries again")
    return read_study(records)
