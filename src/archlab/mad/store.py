"""The store of MAD trials."""

import zlib
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.mad.trial import Trial, TrialResult
from archlab.store import ledger
from archlab.store.ledger import AnyRow, Ledger
from archlab.store.record import read_non_finite, spell_non_finite
from archlab.store.schema import trials

Record = ledger.Record[Trial, TrialResult]


class TrialStore(Ledger[Trial, TrialResult]):
    """The results database as trials see it."""

    table = trials
    description: ClassVar[str] = "trial"
    filled_by: ClassVar[str] = "archlab run SPEC"
    kind: ClassVar[str] = "mad"

    @override
    def read_job(self, description: dict[str, Any]) -> Trial:
        return Trial.from_dict(description)

    @override
    def finish(self, job: Trial, result: TrialResult, provenance: dict[str, Any]) -> None:
        super().finish(job, result, provenance | {"costs": asdict(job.costs)})

    @override
    def result_columns(self, result: TrialResult) -> dict[str, Any]:
        values = result.to_dict()
        del values["numerators"], values["denominators"]
        return {
            "status": result.status,
            "result": spell_non_finite(values),
            "numerators": _compress(result.numerators),
            "denominators": _compress(result.denominators),
        }

    @override
    def read_result(self, row: AnyRow) -> TrialResult:
        arrays = {"numerators": _decompress(row.numerators), "denominators": _decompress(row.denominators)}
        return TrialResult.from_dict(read_non_finite(row.result) | arrays)


def _compress(array: NDArray[np.float32]) -> bytes:
    return zlib.compress(np.asarray(array, dtype="<f4").tobytes())


def _decompress(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(zlib.decompress(data), dtype="<f4").astype(np.float32)
