"""Carries the results of a store over a change of the code that changes no number."""

from collections.abc import Callable
from typing import Any

from archlab.errors import ArchlabError
from archlab.store.ledger import J, Ledger
from archlab.store.record import RACED, SETTLED


def rekey(ledger: Ledger[J, Any], present_key: Callable[[J], str | None]) -> dict[str, int]:
    """Give results the keys that the present code has for their jobs, all or none; those of running jobs are not touched.

    If a job has several results, the latest gets the key; one that was computed to the end goes before one that was dropped.
    ``present_key`` gives None, or raises an ArchlabError, if the present code cannot compute a job.

    Returns:
        Results that ``moved`` to a new key; that had it already (``current``); that are ``kept`` beside another result of the
        same job; and that are ``left`` because the present code cannot read or compute their job.
    """
    unreadable: dict[str, str] = {}
    records = [record for record in ledger.outcomes(unreadable=unreadable) if record.status in RACED][::-1]
    wanted: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.status not in SETTLED):
        try:
            key = present_key(record.job)
        except ArchlabError:
            key = None
        if key is not None:
            wanted[record.key] = key
    old = {key: new for key, new in wanted.items() if key != new}
    moved = len(ledger.rekey(old)) if old else 0
    left = len(records) - len(wanted) + len(unreadable)
    return {"moved": moved, "current": len(wanted) - len(old), "kept": len(old) - moved, "left": left}
