"""Training runs that are submitted to the workers of a store, and what a worker makes of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archlab.architectures.stored import is_available
from archlab.errors import ArchlabError
from archlab.jobs.pull import Order
from archlab.machine import Device
from archlab.scaling.models import Keep
from archlab.scaling.runner import TrunksInTurn, corpus_of, dropping_checkpoints
from archlab.scaling.store import StudyStore
from archlab.scaling.trial import LMTrial
from archlab.store.submissions import Submission, Submissions


def describe(trials: Sequence[LMTrial]) -> dict[str, Any]:
    """Training runs as a submission holds them."""
    return {"trials": [trial.to_dict() for trial in trials]}


def read(one: Submission, submissions: Submissions, device: Device, checkpoints: Path, keep: Keep) -> Order[LMTrial, Any]:
    """The training runs of a submission that a worker can compute: it has their corpora, and its code gives them the
    submitter's keys.

    Raises:
        ArchlabError: the submission is of a later version of archlab.
    """
    planned = [LMTrial.from_dict(trial) for trial in one.what["trials"]]
    left: Counter[str] = Counter()
    mine: list[LMTrial] = []
    for trial, key in zip(planned, one.keys, strict=True):
        if not is_available(trial.run.architecture):
            left[f"the layers of {trial.run.label} are not known here (--layers FILE)"] += 1
        elif trial.device != device:
            left[f"they are for --device {trial.device}"] += 1
        elif trial.key != key:
            left["the code or a library of this machine is another version than the submitter's"] += 1
        elif why := _lacks_corpus(trial):
            left[why] += 1
        else:
            mine.append(trial)
    reasons = "; ".join(f"{number} of {len(planned)} training runs are left to others: {why}" for why, number in left.items())
    return Order(mine, reasons, StudyStore(submissions), TrunksInTurn(), [dropping_checkpoints(mine, checkpoints, keep)])


def _lacks_corpus(trial: LMTrial) -> str:
    try:
        trial.on(corpus_of(trial.run.corpus, trial.run.tokenizer))
    except ArchlabError as error:
        return str(error)
    return ""
