"""The functions that look after a store: count what it holds, carry results over a change of the code, merge others into it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from archlab.architectures.stored import check_width, is_available
from archlab.fields import checked, not_empty
from archlab.mad.plan import Plan
from archlab.mad.store import TrialStore
from archlab.mad.trial import Trial
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.store import ImportStore, StudyStore, read_plan
from archlab.scaling.trial import LMTrial
from archlab.store.ledger import Ledger
from archlab.store.rekey import rekey
from archlab.store.transfer import merge
from archlab.tasks.stored import is_known

if TYPE_CHECKING:
    import pandas as pd

Location = str | os.PathLike[str]


def _check_whole(job: Trial | LMTrial | ImportedRun) -> None:
    if isinstance(job, Trial):
        check_width(job.architecture)


def _whole_plan(values: dict[str, Any]) -> Plan:
    plan = Plan.from_dict(values)
    for one in plan.architectures:
        check_width(one)
    return plan


LEDGERS: dict[type[Ledger[Any, Any]], Callable[[dict[str, Any]], Any]] = {
    TrialStore: _whole_plan,
    StudyStore: read_plan,
    ImportStore: dict,
}
"""The tables of results, each with what reads the plans of its runs."""


@dataclass(frozen=True)
class StoreCheck:
    """A count of all that a store holds."""

    tables: tuple[dict[str, Any], ...]
    """For trials and for training runs: how many there are, by status, and of the present version of the code."""
    unreadable: tuple[str, ...]
    """One line for every row, and every run, that cannot be read."""
    deleted: int = 0
    """Rows and runs among them that were deleted."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"tables": list(self.tables), "unreadable": list(self.unreadable), "deleted": self.deleted}

    def to_frame(self) -> pd.DataFrame:
        """One row for trials, one for training runs."""
        import pandas as pd

        return pd.DataFrame(self.tables)

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.4g}".format))


@checked
def check_store(store: Location = "archlab.db", *, delete: bool = False) -> StoreCheck:
    """Read everything in a store, and count it.

    Args:
        store: a path or database URL.
        delete: delete the rows and runs that cannot be read, those of a later version of archlab too.

    Raises:
        ArchlabError: there is no store, or it cannot be written.
    """
    rows: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    deleted = 0
    for ledger, read in LEDGERS.items():
        with ledger(store, create=False) as opened:
            known = set(unreadable)
            statuses: Counter[str] = Counter()
            present = 0
            for record in opened.scan(_check_whole, unreadable=unreadable):
                statuses[record.status] += 1
                present += record.result is not None and record.key == record.job.key
            counts = {status: statuses[status] for status in ("finished", "diverged", "dropped", "failed", "running")}
            what = {"what": ledger.table.name.replace("_", " "), "all": statuses.total()}
            rows.append(what | counts | {"of the present code": present, "runs": len(opened.runs(read, unreadable=unreadable))})
            if delete and (lost := unreadable.keys() - known):
                deleted += opened.delete_unreadable(lost)
    return StoreCheck(tuple(rows), tuple(unreadable.values()), deleted)


@checked
def rekey_store(store: Location = "archlab.db") -> dict[str, int]:
    """Carry the results of a store over a change of the code that is known to change no number.

    Every result gets the key that the present code has for its trial or training run, so it is never computed again; so do the
    models that were kept beside the store.

    Returns:
        Results that ``moved`` to a new key; that had it already (``current``); that are ``kept`` beside another result of the
        present code; and that are ``left`` because a layer or a task is not available, or they cannot be read.

    Raises:
        ArchlabError: there is no store, or it cannot be written.
    """
    from archlab.mad.models import read_trial
    from archlab.scaling.models import read_training_run
    from archlab.store.kept import rekey_models

    counts: Counter[str] = Counter()
    for ledger in LEDGERS:
        with ledger(store, create=False) as opened:
            counts.update(rekey(opened, present_key))
    rekey_models(store, read_training_run, present_key)
    rekey_models(store, read_trial, present_key)
    return dict(counts)


def present_key(job: Trial | LMTrial | ImportedRun) -> str | None:
    """Key of a job; None if a layer or the task of it is not available."""
    if isinstance(job, ImportedRun):  # no code computed it
        return job.key
    architecture = job.architecture if isinstance(job, Trial) else job.run.architecture
    known = is_available(architecture) and not (isinstance(job, Trial) and not is_known(job.setting))
    return job.key if known else None


@checked
def merge_stores(sources: Location | Annotated[Sequence[Location], not_empty], store: Location = "archlab.db") -> dict[str, int]:
    """Copy the results and runs of other stores into one, all or none. Results that it has already stay as they are.

    Returns:
        How many rows were copied, by table; and how many were ``left``, because they are damaged.

    Raises:
        ArchlabError: a source is no store, or the target cannot be written.
    """
    return merge([sources] if isinstance(sources, str | os.PathLike) else sources, store)
