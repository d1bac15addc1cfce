"""The worker that `archlab work` starts: computes trials and training runs that others have submitted to a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archlab.fields import Count, NonNegative, Positive, checked
from archlab.jobs import pull
from archlab.jobs.events import Listener
from archlab.jobs.executor import Executor, Thresholds
from archlab.jobs.local import LocalExecutor
from archlab.machine import Device
from archlab.mad import submission as trials
from archlab.mad.store import TrialStore
from archlab.scaling import submission as training_runs
from archlab.scaling.models import Keep
from archlab.scaling.store import StudyStore
from archlab.store.kept import folder_beside
from archlab.store.submissions import Submission, Submissions

if TYPE_CHECKING:
    from archlab.mad.trial import Trial
    from archlab.scaling.trial import LMTrial


def compute(
    jobs: Sequence[Trial | LMTrial],
    on_progress: Callable[[int, Any], None],
    thresholds: Sequence[Thresholds],
    *,
    checkpoints: Path,
    models: Path | None,
    keep: Keep,
) -> Iterator[tuple[int, Any]]:
    """Train trials together, or language models one after the other; the work of an executor."""
    from archlab.mad.trial import Trial

    some: Any = jobs
    if isinstance(jobs[0], Trial):
        from archlab.mad.train import train_together

        yield from train_together(some, on_progress, thresholds)
    else:
        from archlab.scaling.runner import train_jobs

        modules = jobs[0].origin.split()
        yield from train_jobs(some, on_progress, thresholds, checkpoints=checkpoints, models=models, keep=keep, modules=modules)


@checked
def work(
    store: str | os.PathLike[str],
    *,
    slots: Count | None = None,
    device: Device = "cpu",
    time_limit: Positive | None = None,
    max_hours: NonNegative | None = None,
    max_idle: NonNegative | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    keep: Keep = "weights",
    listener: Callable[[], Listener] | None = None,
    tell: Callable[[str], object] = print,
) -> int:
    """Compute what runs have submitted to a store by ``executor="workers"``; the number of jobs that were computed.

    A job is computed only if its layers and its task are known to this process, and its code gives the job the key that the
    submitter has given it.

    Args:
        store: the store that the runs were given.
        slots: jobs at once, each in a process of its own; by default one a core, or one a GPU.
        device: where to train; jobs for the other one are left to others.
        time_limit: minutes that a job may take; by default twenty times the predicted time, and at least 15.
        max_hours: takes no new job after so long, and ends with those that run.
        max_idle: ends after so many minutes without anything to do; by default it waits.
        checkpoints: folder of unfinished training runs; by default beside the store, or in the current folder.
        keep: what stays of a finished language model on this machine: ``"weights"``, ``"checkpoints"`` or ``"none"``.
        listener: makes what is called with every event of one run.
        tell: takes lines about the worker itself.

    Raises:
        ArchlabError: there is no store, or it is gone.
        KeyboardInterrupt: after Ctrl-C or a request to end; claims are given back.
    """
    with ExitStack() as stack:
        submissions = stack.enter_context(Submissions(store))
        folder = stack.enter_context(folder_beside(store, "checkpoints", "by --checkpoints", checkpoints))
        models = None if keep == "none" else stack.enter_context(folder_beside(store, "models", "for the store, or --keep none"))
        made: Executor[Any, Any, Any] = LocalExecutor(
            partial(compute, checkpoints=folder, models=models, keep=keep), slots, device=device, time_limit=time_limit
        )
        executor = stack.enter_context(made)
        readers: dict[str, Any] = {
            TrialStore.kind: partial(trials.read, slots=executor.num_workers, device=device),
            StudyStore.kind: partial(training_runs.read, device=device, checkpoints=folder, keep=keep),
        }

        def heard(read: pull.Reader, one: Submission, opened: Submissions) -> pull.Order[Any, Any]:
            order = read(one, opened)
            return order if listener is None else replace(order, listeners=[*order.listeners, listener()])

        return pull.work(
            submissions,
            executor,
            {kind: partial(heard, read) for kind, read in readers.items()},
            tell=tell,
            max_seconds=None if max_hours is None else 3600 * max_hours,
            max_idle=None if max_idle is None else 60 * max_idle,
        )
