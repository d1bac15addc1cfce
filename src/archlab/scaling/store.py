"""The store of language models: which trainings are done, which are being computed and by whom, and what they gave."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import inspect as inspect_database

from archlab.store.ledger import Ledger, Piece
from archlab.store.record import Status, read_non_finite, spell_non_finite
from archlab.store.schema import language_models


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecord:
    """One training of a language model as the store knows it."""

    key: str
    run: dict[str, Any]
    """What was trained, as the run wrote itself down."""
    status: Status
    result: dict[str, Any] | None
    """Present if and only if the status is ``finished`` or ``diverged``."""
    error: str | None
    """Why the latest attempt failed: one line, then the end of the traceback."""
    provenance: dict[str, Any]
    """Where and when, as :attr:`archlab.mad.store.Record.provenance`."""


class LanguageModelStore(Ledger[Piece]):
    """The results database as trainings of language models see it, see :class:`archlab.store.ledger.Ledger`."""

    table = language_models
    description: ClassVar[str] = "run"
    filled_by: ClassVar[str] = "archlab scale run PLAN"

    def records(self, keys: Iterable[str] | None = None, statuses: Iterable[Status] | None = None) -> list[LanguageModelRecord]:
        """What is known about trainings: all of them, oldest first, or those with the given keys, in that order."""
        if not inspect_database(self._engine).has_table(self.table.name):  # a store from before there were any
            return []
        return [
            LanguageModelRecord(
                key=row.key,
                run=row.run,
                status=row.status,
                result=None if row.result is None else read_non_finite(row.result),
                error=row.error,
                provenance=row.provenance or {},
            )
            for row in self._rows(keys, statuses)
        ]

    def finish(self, run: Piece, result: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Store the result of a training, JSON-ready but for numbers that are not finite; on return it is on the disk.

        Its ``status`` is that of the record. A result that another owner has stored meanwhile stays.
        """
        self._settle(run, {"status": result["status"], "provenance": provenance, "result": spell_non_finite(result)})
