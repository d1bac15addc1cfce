"""Notes in the store how each call that computes a run has ended, for `archlab runs`."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from archlab.errors import ArchlabError, Terminated, in_one_line
from archlab.jobs.events import Event, Listener, RunEnded, RunSummary
from archlab.machine import Device
from archlab.store.ledger import Ledger
from archlab.store.provenance import environment
from archlab.store.runs import Attempt


@contextmanager
def noted(store: Ledger[Any, Any], run: int, executor: str, device: Device) -> Iterator[Listener]:
    """Note an attempt at a run and how it ends. Gives the listener that hears what comes of it."""
    versions = {name: value for name, value in environment(device).items() if name != "kernels"}
    number = store.begin_attempt(run, {"at": _now(), "pid": os.getpid(), "executor": executor.partition(":")[0], **versions})
    summaries: list[RunSummary] = []

    def listen(event: Event) -> None:
        if isinstance(event, RunEnded):
            summaries.append(event.summary)

    how = "done"
    try:
        yield listen
    except BaseException as error:
        asked = "SIGTERM" if isinstance(error, Terminated) else "Ctrl-C"
        how = f"stopped by {asked}" if isinstance(error, KeyboardInterrupt) else f"ended by an error: {in_one_line(error)[:300]}"
        raise
    finally:
        failed = len(summaries[-1].failed) if summaries else 0
        counts = {name: getattr(summaries[-1], name) for name in ("computed", "reused", "skipped")} if summaries else {}
        how = f"{failed} failed" if failed and how == "done" else how
        with suppress(ArchlabError):
            store.end_attempt(number, {"at": _now(), "how": how, "failed": failed, **counts})


def ending(last: Attempt | None) -> dict[str, str | None]:
    """How the latest attempt at a run ended, where, and with which versions; None for what is not known."""
    where = {} if last is None else last.begun
    ended = None if last is None else last.end
    return {"ended": ended} | {name: where.get(name) for name in ("host", "archlab", "torch", "python")}


def by_cause(reasons: Iterable[str]) -> dict[str, int]:
    """How often each cause occurs, the most frequent first; reasons that differ in numbers only are one, named by the first."""
    names: dict[str, str] = {}
    counts = Counter(names.setdefault(re.sub(r"\d+(\.\d+)?", "#", reason), reason) for reason in reasons)
    return dict(counts.most_common())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
