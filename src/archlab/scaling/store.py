"""The store of the training runs of language models."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from sqlalchemy import inspect as inspect_database
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.scaling.result import LMResult
from archlab.scaling.trial import LMTrial
from archlab.store import ledger
from archlab.store.ledger import AnyRow, Ledger
from archlab.store.record import read_non_finite, spell_non_finite
from archlab.store.schema import language_models

Record = ledger.Record[LMTrial, LMResult]


class StudyStore(Ledger[LMTrial, LMResult]):
    """The results database as training runs of language models see it."""

    table = language_models
    description: ClassVar[str] = "run"
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

    @override
    def _rows(self, columns: Any, keys: Any, statuses: Any) -> Iterator[AnyRow]:
        if not inspect_database(self._engine).has_table(self.table.name):  # a store from before there were any
            return iter(())
        return super()._rows(columns, keys, statuses)

    def remember_plan(self, name: str, trials: Sequence[LMTrial]) -> None:
        """Note the training runs of a plan by its file's name, which a later one replaces, so that fits can name missing ones."""
        descriptions = [trial.to_dict() for trial in trials]
        if not any(run.plan.get("name") == name and run.plan.get("trials") == descriptions for run in self.runs()[-1:]):
            self.remember_run({"name": name, "trials": descriptions})

    def plans(self) -> dict[str, list[LMTrial]]:
        """The training runs of the latest plan of every name; plans that this archlab cannot read are left out."""
        plans: dict[str, list[LMTrial]] = {}
        for run in self.runs():
            with suppress(ArchlabError, KeyError, TypeError):
                plans[run.plan["name"]] = [LMTrial.from_dict(trial) for trial in run.plan["trials"]]
        return plans
