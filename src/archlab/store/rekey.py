"""Carries the results of a store over a change of the code that changes no number."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archlab.errors import ArchlabError
from archlab.store.ledger import J, Ledger
from archlab.store.record import RACED, SETTLED


@dataclass(frozen=True)
class Rekeyed:
    """Results of a store by what became of their keys."""

    moved: int
    """Have the key of the present code now."""
    current: int
    """Had it already."""
    kept: int
    """Have an old key still: another result of the same job has the present one."""
    left: int
    """Have an old key still: the present code cannot read or compute their job."""


def rekey(ledger: Ledger[J, Any], present_key: Callable[[J], str | None]) -> Rekeyed:
    """Give results the keys that the present code has for their jobs, all or none.

    If a job has several results, the latest gets the key; one that was computed to the end goes before one that was dropped.
    Results that have the key already, and jobs that are running, are not touched.

    Args:
        ledger: the table.
        present_key: the present key of a job; None, or an ArchlabError, if the present code cannot compute the job.

    Raises:
        ArchlabError: the store cannot be read or written.
    """
    unreadable: list[str] = []
    records = [record for record in ledger.records(unreadable=unreadable) if record.status in RACED][::-1]
    wanted: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.status not in SETTLED):
        try:
            key = present_key(record.job)
        except ArchlabError:
            key = None
        if key is not None:
            wanted[record.key] = key
    old = {key: new for key, new in wanted.items() if key != new}
    moved = len(ledger.rekey(old))
    left = len(records) - len(wanted) + len(unreadable)
    return Rekeyed(moved, len(wanted) - len(old), len(old) - moved, left)
