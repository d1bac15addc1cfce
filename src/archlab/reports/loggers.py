"""Loggers: listeners that write the events of a run down, as JSON lines or for a program that shows trainings.

A line of JSON is an event: ``{"version": 1, "time": ..., "event": "job_finished", "job": {...}, "result": {...}}``. The other
programs get a run for every job that is computed: its configuration, its loss and score by step, and its result.
"""

import json
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archlab.errors import ArchlabError, in_one_line
from archlab.fields import checked
from archlab.files import check_place
from archlab.jobs import events
from archlab.jobs.events import Event, Listener
from archlab.reports import trackers
from archlab.store.record import spell_non_finite

VERSION = 1
"""Version of the lines of JSON; fields that are added do not change it."""


@checked
def logger(where: str) -> Listener:
    """Make a listener that writes the events of a run down, for ``archlab.run(..., listeners=[...])``.

    If it fails, it says so once on standard error and is silent from then on; the run goes on.

    Args:
        where: a file of JSON lines, ``events.jsonl`` or ``jsonl:PATH``, to which lines are added; ``tensorboard:FOLDER``,
            ``trackio:PROJECT``, ``wandb:PROJECT`` or ``mlflow:EXPERIMENT``.

    Raises:
        ArchlabError: there is no such logger, its package is not installed or refuses its settings, or the file cannot be there.
    """
    kind, colon, place = where.partition(":")
    if not colon and where.endswith((".jsonl", ".ndjson")):
        kind, place = "jsonl", where
    if kind not in _KINDS or not place:
        known = "jsonl:PATH, tensorboard:FOLDER, trackio:PROJECT, wandb:PROJECT, mlflow:EXPERIMENT"
        raise ArchlabError(f"log {where}: give a file that ends in .jsonl, or one of {known}")
    try:
        return Guarded(where, _KINDS[kind](place))
    except ImportError as error:
        fix = "pip install tensorboard" if kind == "tensorboard" else f"pip install {kind}"
        raise ArchlabError(f"log {where}: {in_one_line(error)}: {fix}, or pip install 'archlab[track]'") from None
    except ArchlabError:
        raise
    except Exception as error:  # whatever the program says of its settings
        raise ArchlabError(f"log {where}: {in_one_line(error)}") from None


class Guarded:
    """A listener whose failures never reach the run: the first one is told, and it hears no more events."""

    def __init__(self, name: str, listener: Listener) -> None:
        self.name, self.listener = name, listener
        self.failed = False

    def __call__(self, event: Event) -> None:
        """Pass an event on, with standard output on standard error: it belongs to the command."""
        if self.failed:
            return
        try:
            with redirect_stdout(sys.stderr):
                self.listener(event)
        except Exception as error:
            self.failed = True
            print(f"log {self.name}: {in_one_line(error)}: nothing more is logged there, the run goes on", file=sys.stderr)


class JSONLines:
    """Adds a line for every event to a file."""

    def __init__(self, path: str) -> None:
        check_place(Path(path), "log")
        self.path = path

    def __call__(self, event: Event) -> None:
        """Write a line at once, so that what follows the file sees it."""
        line = json.dumps(spell_non_finite(as_document(event)), allow_nan=False) + "\n"
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode())


def as_document(event: Event) -> dict[str, Any]:
    """An event as JSON lines have it; numbers that are not finite are left as they are."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    found: dict[str, Any] = {"version": VERSION, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name}
    match event:
        case events.RunStarted(jobs, num_workers):
            return found | {"jobs": len(jobs), "workers": num_workers}
        case events.JobStarted(job):
            return found | {"job": trackers.facts(job)}
        case events.JobProgressed(job, progress):
            return found | {"job": trackers.facts(job), "progress": asdict(progress)}
        case events.JobReused(job, result):
            return found | {"job": trackers.facts(job), "result": trackers.summary(result)}
        case events.JobFinished(job, result):
            return found | {
                "job": trackers.facts(job),
                "result": trackers.summary(result),
                "curve": [{"step": n} | at for n, at in trackers.curve(result)],
            }
        case events.JobFailed(job, error):
            return found | {"job": trackers.facts(job), "error": error}
        case events.JobsSkipped(jobs) | events.Waiting(jobs):
            return found | {"keys": [job.key for job in jobs]}
        case events.ResultsDamaged(reasons):
            return found | {"reasons": reasons}
        case events.RunEnded(ended, interrupted):
            counts = {name: getattr(ended, name) for name in ("total", "reused", "computed", "skipped", "wall_seconds")}
            return found | counts | {"failed": ended.failed, "interrupted": interrupted}


_KINDS: dict[str, Callable[[str], Listener]] = {
    "jsonl": JSONLines,
    "tensorboard": trackers.TensorBoard,
    "trackio": trackers.Trackio,
    "wandb": trackers.Wandb,
    "mlflow": trackers.MLflow,
}
