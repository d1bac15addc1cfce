"""Trials that a run submits to the workers of its store, and what a worker makes of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from archlab.architectures.stored import is_available
from archlab.errors import ArchlabError
from archlab.fields import check_value
from archlab.jobs.pull import Order
from archlab.machine import Device
from archlab.mad.memory import check_memory, fitting_population
from archlab.mad.plan import Plan
from archlab.mad.racing import Race, Racing
from archlab.mad.store import TrialStore
from archlab.mad.trial import Trial
from archlab.store.submissions import Submission, Submissions
from archlab.tasks.stored import is_known


def describe(plan: Plan, race: Race, population: int | None) -> dict[str, Any]:
    """A run of a plan as a submission holds it; without a population every worker trains as many together as fit."""
    return {"plan": plan.to_dict(), "race": race, "population": population}


def read(one: Submission, submissions: Submissions, slots: int, device: Device) -> Order[Trial, Any]:
    """The trials of a submission that a worker can compute: its code gives them the submitter's keys, and they fit its memory.

    Raises:
        ArchlabError: the submission is of a later version of archlab.
    """
    planned = Plan.from_dict(one.what["plan"]).trials()
    race = check_value("race", one.what["race"], Race)
    population = check_value("population", one.what["population"], int | None)
    left: Counter[str] = Counter()
    mine: list[Trial] = []
    for trial, key in zip(planned, one.keys, strict=True):
        if not is_available(trial.architecture):
            left[f"the layers of {trial.architecture.label} are not known here (--layers FILE)"] += 1
        elif not is_known(trial.setting):
            left[f"the task {trial.setting.name} is not known here (--tasks-file FILE)"] += 1
        elif trial.device != device:
            left[f"they are for --device {trial.device}"] += 1
        elif trial.key != key:
            left["the code or a library of this machine is another version than the submitter's"] += 1
        else:
            mine.append(trial)
    mine, large = _fitting(mine, slots, population or 1)
    if large:
        left["they need more memory than this machine has free"] += len(large)
    reasons = "; ".join(f"{number} of {len(planned)} trials are left to others: {why}" for why, number in left.items())
    return Order(mine, reasons, TrialStore(submissions), Racing(mine, race, population or fitting_population(mine, slots)))


def _fitting(trials: list[Trial], slots: int, population: int) -> tuple[list[Trial], list[Trial]]:
    """Trials that fit the memory of this machine, and those that do not, architecture by architecture."""
    if _fits(trials, slots, population):
        return trials, []
    large = {
        architecture
        for architecture in {trial.architecture for trial in trials}
        if not _fits([trial for trial in trials if trial.architecture == architecture], slots, population)
    }
    return [one for one in trials if one.architecture not in large], [one for one in trials if one.architecture in large]


def _fits(trials: Sequence[Trial], slots: int, population: int) -> bool:
    try:
        check_memory([*trials], slots, population)
    except ArchlabError:
        return False
    return True
