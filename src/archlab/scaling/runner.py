"""Trains the language models of a plan that a store lacks."""

import importlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from archlab.corpora import Corpus, prepare
from archlab.jobs.events import Event, JobFinished, JobReused, JobsSkipped, Listener, RunSummary
from archlab.jobs.executor import Executor, Thresholds
from archlab.jobs.policy import Policy
from archlab.jobs.scheduler import run
from archlab.scaling.models import Keep
from archlab.scaling.processes import Processes
from archlab.scaling.result import LMProgress, LMResult
from archlab.scaling.store import StudyStore
from archlab.scaling.trial import LMTrial

GRACE_SECONDS = 30.0
"""Time that training runs have to write a checkpoint when the run is interrupted."""


@lru_cache(maxsize=4)
def corpus_of(source: str, tokenizer: str) -> Corpus:
    """The prepared corpus of a training run, whose tokens are as they were written."""
    return prepare(source, tokenizer, verify=True)


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
        trunk = None if trial.trunk is None else trunk_folder(checkpoints, trial.trunk)
        yield index, train(trial, corpus, processes, checkpoints=place, trunk=trunk, **kept, on_progress=report)


def trunk_folder(checkpoints: Path, trunk: str) -> Path:
    """The folder of the state from which longer horizons go on."""
    return checkpoints / f"trunk-{trunk}"


def in_turn(trials: Iterable[LMTrial], running: Collection[LMTrial]) -> list[LMTrial]:
    """The trials that may start, the most expensive first; of a trunk's horizons only the shortest, once no other runs."""
    trunks: dict[str, list[LMTrial]] = defaultdict(list)
    for trial in trials:
        trunks[trial.trunk or trial.key].append(trial)
    taken = {trial.trunk for trial in running}
    free = [sorted(some, key=lambda trial: trial.flops) for trunk, some in trunks.items() if trunk not in taken]
    return [some[0] for some in sorted(free, key=lambda some: -some[-1].flops)]


class TrunksInTurn(Policy[LMTrial, LMResult]):
    """Starts the training runs with the most FLOPs first, of all or of one architecture after the other, but the horizons of a
    trunk one after the other, the shortest first."""

    def __init__(self, *, by_architecture: bool = False) -> None:
        """With ``by_architecture`` those of the first architecture come first."""
        self.by_architecture = by_architecture

    @override
    def order(self, waiting: Mapping[str, LMTrial], running: Collection[LMTrial]) -> list[LMTrial]:
        groups: dict[str, list[LMTrial]] = defaultdict(list)
        for trial in waiting.values():
            groups[trial.run.label if self.by_architecture else ""].append(trial)
        return [trial for some in groups.values() for trial in in_turn(some, running)]


def dropping_checkpoints(trials: Sequence[LMTrial], checkpoints: Path, keep: Keep) -> Listener:
    """A listener that drops checkpoints once a result is stored, unless they are to be kept or were by an earlier run; that of
    a trunk once all its horizons have ended."""
    left = Counter(trial.trunk for trial in trials)

    def drop_checkpoints(event: Event) -> None:
        one = [event.job] if isinstance(event, JobFinished | JobReused) else []
        for job in event.jobs if isinstance(event, JobsSkipped) else one:
            left[job.trunk] -= 1
            if job.trunk is not None and not left[job.trunk]:
                shutil.rmtree(trunk_folder(checkpoints, job.trunk), ignore_errors=True)
        if keep != "checkpoints" and isinstance(event, JobFinished | JobReused):
            folder = checkpoints / event.job.key
            if isinstance(event, JobReused) and (folder / f"step-{event.job.run.steps}").is_dir():  # of the last step: kept
                return
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others are left in it
                checkpoints.rmdir()

    return drop_checkpoints


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

    Checkpoints are dropped, see :func:`dropping_checkpoints`. After Ctrl-C every training run has written one.
    """
    used = policy or TrunksInTurn()
    return run(
        trials,
        store,
        executor,
        policy=used,
        listeners=[dropping_checkpoints(trials, checkpoints, keep), *listeners],
        grace=GRACE_SECONDS,
    )
