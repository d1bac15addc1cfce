"""The statuses of a row, and the JSON that rows hold."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from reprlib import repr as short
from types import NoneType
from typing import Any, Literal, get_args

from archlab.errors import ArchlabError

Status = Literal["running", "finished", "diverged", "dropped", "failed"]
SETTLED: tuple[Status, ...] = ("finished", "diverged")
"""The statuses of trials with a final result: they are never computed again."""
STATUSES: tuple[Status, ...] = get_args(Status)
RACED: tuple[Status, ...] = (*SETTLED, "dropped")
"""The statuses of trials that a race by halving is through with; any other run computes dropped ones to the end."""


VERBATIM = ("sqlite", "postgresql")
"""Databases that keep JSON as it was written."""


def dump_json(value: Any) -> str:
    """Standard JSON: a number that JSON does not have is a programming error, never silently written."""
    return json.dumps(value, allow_nan=False)


def load_json(text: str) -> Any:
    """The value of stored JSON; of text that is none, or too deep, the text itself, for whoever reads the row to refuse."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_TYPES: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "error": (str, NoneType),
    "result": (dict, NoneType),
    **dict.fromkeys(("trial", "run", "plan"), (dict,)),
}


def check_columns(row: Mapping[str, Any]) -> None:
    """Refuse values of columns that no archlab writes; a database may hold any. Raises an ArchlabError that names the column."""
    for name, value in row.items():
        if not isinstance(value, _TYPES.get(name, object)) or (name == "status" and value not in STATUSES):
            raise ArchlabError(f"it is damaged ({name}={short(value)})")


def checksum(text: str) -> int:
    """CRC-32 of stored JSON."""
    return zlib.crc32(text.encode())


def check_unchanged(text: str, expected: object) -> None:
    """Refuse JSON that is not as it was written; an earlier version of archlab wrote no checksum: None."""
    if expected is not None and checksum(text) != expected:
        raise ArchlabError("it is damaged (it is not as it was written: the checksum differs)")


def read_provenance(value: Any) -> dict[str, Any]:
    """The provenance that a row holds, empty where it has none; refuses values that no archlab writes."""
    if value is None:
        return {}
    whole = isinstance(value, dict) and isinstance(value.get("costs", {}), dict)
    for name, found in value.items() if whole else ():
        allowed = (int, float, NoneType) if name in ("costs", "wall_seconds", "checksum") else (str, NoneType)
        whole = whole and all(isinstance(one, allowed) for one in (found.values() if isinstance(found, dict) else [found]))
    if not whole:
        raise ArchlabError(f"it is damaged (provenance={short(value)})")
    return dict(value)


def check_numbers(values: Iterable[Any]) -> None:
    """Refuse a value that is no number; NaN and infinities are."""
    for value in values:
        if not isinstance(value, int | float):
            raise ArchlabError(f"it is damaged ({short(value)} where a number belongs)")


NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


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
        return {name: item if isinstance(item, float) else read_non_finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [read_non_finite(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value
