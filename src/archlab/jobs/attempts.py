"""Notes in the store how each call that computes a run has ended, for `archlab runs`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from archlab.errors import ArchlabError, Terminated, in_one_line
from archlab.jobs.events import Event, Listener, RunEnded, RunSummary
from archlab.machine import Device
from archlab.store.ledger import Ledger
from archlab.store.provenance import environment


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
