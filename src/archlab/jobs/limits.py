"""Limits of what a job takes of its machine: time, memory, printed text.

The processes that it has started end with it.
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from archlab.errors import in_one_line
from archlab.isolation import place_of_signal

USUAL_SPEED = {"cpu": 1e9, "cuda": 1e11}
"""FLOP/s of a worker by which the time of a job is predicted; the slowest layers of archlab reach several times as many."""
TIME_FACTOR = 20.0
"""A job may take so many times the predicted time."""
LEAST_SECONDS = 900.0
"""A job may always take so long."""
LEAST_BYTES = 1 << 30
"""Memory that a worker may always take."""
PRINTED_BYTES = 64 << 10
"""Text that a job may print; more is left out."""
_LAST_BYTES = 4 << 10
"""Text of a job whose worker dies that its record keeps: there Python says where that was."""


def seconds_for(jobs: Sequence[Any], minutes: float | None) -> float | None:
    """Seconds that jobs which are computed together may take, at so many minutes for each; None for as long as they like.

    Without a number of minutes each may take :data:`TIME_FACTOR` times what its FLOPs take at :data:`USUAL_SPEED`, and at least
    :data:`LEAST_SECONDS`. Jobs that tell no FLOPs have no limit.
    """
    if minutes is not None:
        return 60 * minutes * len(jobs)
    if not all(hasattr(job, "flops") for job in jobs):
        return None
    return sum((max(LEAST_SECONDS, TIME_FACTOR * job.flops / USUAL_SPEED[job.device]) for job in jobs), 0.0)


def too_long(seconds: float) -> str:
    """The reason why a job failed that has taken longer than so many seconds."""
    return f"it has not ended within {seconds / 60:.3g} minutes, its time limit: --time-limit MINUTES gives it longer"


def limit_memory(most: int) -> None:
    """Have allocations of this process and of those that it starts fail beyond so many bytes each; on Linux only."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def out_of_memory(error: BaseException, most: int | None) -> str:
    """The words before an error that an allocation beyond the limit may have caused; empty for another error."""
    if most is None or not (isinstance(error, MemoryError) or "can't allocate memory" in in_one_line(error)):
        return ""
    return f"it needs more than the {most / 2**30:.1f} GiB that a worker may take, more where --workers are fewer: "


class Printed:
    """Passes on to standard error what a job prints, up to :data:`PRINTED_BYTES`, and keeps the end of it."""

    def __init__(self) -> None:
        """Begin with a job that has printed nothing."""
        self._shown, self._last = 0, b""

    @property
    def last(self) -> str:
        """The last that was printed."""
        return self._last.decode(errors="replace").strip()

    @property
    def place(self) -> str:
        """Where in the job's code a signal came, as Python has printed it; empty if it has not."""
        return place_of_signal(self.last)

    def take(self, text: bytes) -> None:
        """Take what was printed."""
        self._last = (self._last + text)[-_LAST_BYTES:]
        shown = text[: max(PRINTED_BYTES - self._shown, 0)]
        is_more = self._shown <= PRINTED_BYTES < self._shown + len(text)
        self._shown += len(text)
        with suppress(OSError, ValueError):  # nobody reads it any more
            sys.stderr.write(shown.decode(errors="replace"))
            if is_more:
                sys.stderr.write(f"\n[what this job prints beyond {PRINTED_BYTES >> 10} KiB is left out]\n")


def kill_started(variable: str, value: str) -> None:
    """Kill all processes whose environment was started with this value of a variable, whatever group or session they are in.

    On systems without ``/proc`` none is found.
    """
    wanted = f"{variable}={value}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                os.kill(int(place.name), signal.SIGKILL)
