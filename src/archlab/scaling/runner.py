"""Trains the language models of a plan that a store lacks."""

import importlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from archlab.corpora import Corpus, prepare
from archlab.jobs.events import Event, JobFinished, JobReused, Listener, RunSummary
from archlab.jobs.executor import Executor, Thresholds
from archlab.jobs.scheduler import MostExpensiveFirst, Policy, run
from archlab.scaling.models import Keep
from archlab.scaling.processes import Processes
from archlab.scaling.result import LMProgress, LMResult
from archlab.scaling.store import StudyStore
from archlab.scaling.trial import LMTrial

GRACE_SECONDS = 30.0
"""Time that training runs have to write a checkpoint when the run is interrupted."""


@lru_cache(maxsize=4)
def corpus_of(source: str, tokenizer: str) -> Corpus:
    """The prepared corpus of a training run."""
    return prepare(source, tokenizer)


def train_jobs(
    jobs: Sequence[LMTrial],
    on_progress: Callable[[int, LMProgress], None],
    thresholds: Sequence[Thresholds],
    *,
    checkpoints: Path,
    models: Path | None = None,
    keep: Keep = "weights",
    modules: Sequence[str] = (),
    processes: Processes | None = None,
) -> Iterator[tuple[int, LMResult]]:
    """Train one language model after the other; the work of an executor, which prunes no training run.

    ``on_progress`` is called with a job's index, about once a second. Each training run has a folder of its own among the
    ``checkpoints``; the folder of ``models`` takes what is to be kept; ``modules`` make layers from outside archlab known;
    ``processes`` share each model.
    """
    from archlab.scaling.training_loop import train

    for module in modules:
        importlib.import_module(module)
    for index, trial in enumerate(jobs):
        corpus = corpus_of(trial.run.corpus, trial.run.tokenizer)
        trial.on(corpus)
        kept: dict[str, Any] = {"last_checkpoint": keep == "checkpoints", "models": None if keep == "none" else models}
        place, report = checkpoints / trial.key, partial(on_progress, index)
        yield index, train(trial, corpus, processes, checkpoints=place, **kept, on_progress=report)


def train_all(
    trials: Sequence[LMTrial],
    store: StudyStore,
    executor: Executor[LMTrial, Any, LMResult],
    checkpoints: Path,
    listeners: Sequence[Listener] = (),
    keep: Keep = "weights",
    policy: Policy[LMTrial, LMResult] | None = None,
) -> RunSummary:
    """Compute those training runs that the store has no result for by :func:`train_jobs`; by default the most expensive first.

    Checkpoints are dropped once a result is stored, unless they are to be kept or were by an earlier run. After Ctrl-C every
    training run has written one.
    """

    def drop_checkpoints(event: Event) -> None:
        if keep != "checkpoints" and isinstance(event, JobFinished | JobReused):
            folder = checkpoints / event.job.key
            if isinstance(event, JobReused) and (folder / f"step-{event.job.run.steps}").is_dir():  # of the last step: kept
                return
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others are left in it
                checkpoints.rmdir()

    used = policy or MostExpensiveFirst()
    return run(trials, store, executor, policy=used, listeners=[drop_checkpoints, *listeners], grace=GRACE_SECONDS)
