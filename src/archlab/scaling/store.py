"""The store of the training runs of language models."""

from typing import Any, ClassVar

from sqlalchemy import inspect as inspect_database
from typing_extensions import override

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
    kind: ClassVar[str] = "study"

    @override
    def read_job(self, description: dict[str, Any]) -> LMTrial:
        return LMTrial.from_dict(description)

    @override
    def result_columns(self, result: LMResult) -> dict[str, Any]:
        return {"status": result.status, "result": spell_non_finite(result.to_dict())}

    @override
    def read_result(self, row: AnyRow) -> LMResult:
        return LMResult.from_dict(read_non_finite(row.result))

    @override
    def _rows(self, keys: Any, statuses: Any) -> list[AnyRow]:
        if not inspect_database(self._engine).has_table(self.table.name):  # a store from before there were any
            return []
        return super()._rows(keys, statuses)
