"""What the store holds about one trial, and how a result becomes columns."""

import json
import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from archlab.training.trial import Trial, TrialResult

Status = Literal["running", "finished", "diverged", "dropped", "failed"]
SETTLED: tuple[Status, ...] = ("finished", "diverged")
"""The statuses of trials with a final result: they are never computed again."""
RACED: tuple[Status, ...] = (*SETTLED, "dropped")
"""The statuses of trials that a race by halving is through with; any other run computes dropped ones to the end."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial as the store knows it."""

    key: str
    """The trial's key when it was computed; ``trial.key`` differs if the code has changed since."""
    trial: Trial
    status: Status
    result: TrialResult | None
    """Present if and only if the status is ``finished``, ``diverged`` or ``dropped``."""
    error: str | None
    """Why the latest attempt failed: one line, then the end of the traceback."""
    provenance: dict[str, Any]
    """Where and when the result (or the failure) came about, see :func:`archlab.store.environment`; besides
    ``started`` and ``finished`` (UTC, ISO 8601) and ``wall_seconds``. Empty while the first attempt runs."""


def dump_json(value: Any) -> str:
    """Standard JSON: a number that JSON does not have is a programming error, never silently written."""
    return json.dumps(value, allow_nan=False)


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def result_columns(result: TrialResult) -> dict[str, Any]:
    """The result as the columns ``result`` (JSON), ``numerators`` and ``denominators`` (bytes)."""
    values = result.to_dict()
    del values["numerators"], values["denominators"]
    return {
        "result": spell_non_finite(values),
        "numerators": _compress(result.numerators),
        "denominators": _compress(result.denominators),
    }


def result_from_columns(result: dict[str, Any], numerators: bytes, denominators: bytes) -> TrialResult:
    """The inverse of :func:`result_columns`."""
    arrays = {"numerators": _decompress(numerators), "denominators": _decompress(denominators)}
    return TrialResult.from_dict(read_non_finite(result) | arrays)


def _compress(array: NDArray[np.float32]) -> bytes:
    return zlib.compress(np.asarray(array, dtype="<f4").tobytes())


def _decompress(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(zlib.decompress(data), dtype="<f4").astype(np.float32)


def spell_non_finite(value: Any) -> Any:
    """The value with numbers that JSON does not have as words."""
    if isinstance(value, dict):
        return {name: spell_non_finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [spell_non_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_non_finite(value: Any) -> Any:
    """The inverse of :func:`spell_non_finite`."""
    if isinstance(value, dict):
        return {name: read_non_finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [read_non_finite(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
