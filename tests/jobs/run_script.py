"""A run as a script: arguments are the store, the log of trainings, the number of trials, seconds a training, the executor."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fake_training import LoggedTraining, each, make_trials, threads

from archlab.jobs.events import JobFinished, JobStarted, RunEnded
from archlab.jobs.local import LocalExecutor
from archlab.jobs.scheduler import run
from archlab.mad.store import TrialStore
from archlab.mad.trial import Trial


@dataclass(frozen=True)
class Seed:
    """What a fake training needs of a trial."""

    seed: int


class LightTrial(Trial):
    """Reaches a worker as its seed: the worker need not import the layers, and torch with them."""

    def __reduce__(self):
        return Seed, (self.seed,)


if __name__ == "__main__":
    location, log, num_trials, seconds, kind = sys.argv[1:]
    train = LoggedTraining(Path(log), float(seconds))

    def tell(event):
        if isinstance(event, JobStarted | JobFinished):
            print(type(event).__name__, event.job.seed, flush=True)
        elif isinstance(event, RunEnded) and event.interrupted:
            print(f"interrupted after {event.summary.computed}", flush=True)

    executor = LocalExecutor(partial(each, train), 2) if kind == "processes" else threads(train)
    with TrialStore(location) as store, executor:
        trials = [LightTrial(**vars(trial)) for trial in make_trials(int(num_trials))]
        summary = run(trials, store, executor, listeners=[tell])
    print(f"computed {summary.computed} reused {summary.reused}", flush=True)
