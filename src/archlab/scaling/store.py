"""The store of the training runs of language models."""

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from archlab.fields import check_value
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.result import LMResult
from archlab.scaling.trial import LMTrial
from archlab.store import ledger
from archlab.store.ledger import Ledger
from archlab.store.opened import AnyRow
from archlab.store.record import read_non_finite, spell_non_finite
from archlab.store.runs import Lines
from archlab.store.schema import imported_runs, language_models

Record = ledger.Record[LMTrial, LMResult]


class StudyStore(Ledger[LMTrial, LMResult]):
    """The results database as training runs of language models see it."""

    table = language_models
    description: ClassVar[str] = "run"
    noun: ClassVar[str] = "training run"
    filled_by: ClassVar[str] = "archlab scale run PLAN"
    kind: ClassVar[str] = "scaling"

    @override
    def read_job(self, description: dict[str, Any], known: dict[Any, Any]) -> LMTrial:
        return LMTrial.from_dict(description)

    @override
    def result_columns(self, result: LMResult) -> dict[str, Any]:
        return {"status": result.status, "result": spell_non_finite(result.to_dict())}

    @override
    def read_result(self, row: AnyRow) -> LMResult:
        return LMResult.from_dict(read_non_finite(row.result))

    def remember_plan(self, name: str, trials: Sequence[LMTrial]) -> int:
        """Note the training runs of a plan by its file's name, which a later one replaces, so that fits can name missing ones;
        the run's number."""
        descriptions = [trial.to_dict() for trial in trials]
        for run in self.runs(unreadable={})[-1:]:
            if run.plan.get("name") == name and run.plan.get("trials") == descriptions:
                return run.number
        return self.remember_run({"name": name, "trials": descriptions})

    def plans(self, unreadable: Lines) -> dict[str, list[LMTrial]]:
        """The training runs of the latest plan of every name; ``unreadable`` takes a line for each that cannot be read."""
        return dict(run.plan for run in self.runs(read_plan, unreadable=unreadable))


def read_plan(plan: dict[str, Any]) -> tuple[str, list[LMTrial]]:
    """The name and the training runs that :meth:`StudyStore.remember_plan` wrote down."""
    return check_value("name", plan["name"], str), [LMTrial.from_dict(trial) for trial in plan["trials"]]


class ImportStore(Ledger[ImportedRun, float | None]):
    """The results database as imported training runs see it; the result of one is its loss."""

    table = imported_runs
    description: ClassVar[str] = "run"
    noun: ClassVar[str] = "imported training run"
    filled_by: ClassVar[str] = "archlab scale import TABLE"
    kind: ClassVar[str] = "import"

    @override
    def read_job(self, description: dict[str, Any], known: dict[Any, Any]) -> ImportedRun:
        return ImportedRun.from_dict(description)

    @override
    def result_columns(self, result: float | None) -> dict[str, Any]:
        return {"status": "finished" if result is not None else "diverged", "result": {"loss": result}}

    @override
    def read_result(self, row: AnyRow) -> float | None:
        loss: float | None = check_value("loss", row.result["loss"], float | None)
        return loss
