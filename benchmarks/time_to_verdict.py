"""How long until the ranking is that of the exhaustive run, with racing and without.

    python benchmarks/racing.py transformer++ striped-mh-hyena mh-hyena hyena --grid lr=8e-3,4e-3,2e-3 --seeds 1 --store racing
    python benchmarks/time_to_verdict.py --store racing

Replays the stores that ``racing.py`` has left. The verdict is the order of the architectures by their mean over the tasks at
the end of the exhaustive run. After each training, in the order in which they ended, what is there is scored; an architecture
without a score is last. The time to the verdict is the wall time of the run, interruptions left out, and the FLOPs spent,
when the order becomes that of the verdict and stays so to the end.
"""

import argparse
import shlex
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import get_args

import _results
from archlab.benchmark.plan import remembered_plan
from archlab.benchmark.racing import Race
from archlab.benchmark.scoring import score
from archlab.store import Record, Store
from archlab.training import Trial

PAUSE_SECONDS = 60.0
"""A gap between trainings that is longer than this is an interruption."""


def read(path: Path) -> tuple[list[Trial], list[Record]]:
    """The trials of the run that a store remembers, and their records in the order in which they ended."""
    with Store(path, create=False) as store:
        trials = remembered_plan(store).trials()
        records = store.records(skip_unknown=True)
    wanted = set(trials)
    known = [record for record in records if record.trial in wanted and record.result is not None]
    return trials, sorted(known, key=lambda record: record.provenance["finished"])


def busy_seconds(records: list[Record]) -> list[float]:
    """Wall time since the first training began at which each ended, interruptions left out."""
    moments = [datetime.fromisoformat(records[0].provenance["started"])]
    moments += [datetime.fromisoformat(record.provenance["finished"]) for record in records]
    starts = sorted(datetime.fromisoformat(record.provenance["started"]) for record in records)
    elapsed, found = 0.0, []
    for before, after in pairwise(moments):
        began = next((start for start in starts if before < start <= after), before)
        pause = (began - before).total_seconds()
        elapsed += (after - before).total_seconds() - (pause if pause > PAUSE_SECONDS else 0.0)
        found.append(elapsed)
    return found


def order(trials: list[Trial], records: list[Record]) -> list[str]:
    """The architectures, best first; those without a score last, by name."""
    by_trial = {record.trial: record for record in records}
    scores = score(trials, {trial.key: by_trial[trial] for trial in trials if trial in by_trial}, resamples=100)
    ranked = sorted(scores.architectures, key=lambda a: (-(a.score if a.score is not None else -1.0), a.label))
    return [architecture.label for architecture in ranked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("racing"), help="as it was given to racing.py")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    rows, verdict = [], []
    for race in reversed(get_args(Race)):
        trials, records = read(args.store.with_name(f"{args.store.name}-{race}.db"))
        verdict = verdict or order(trials, records)
        seconds = busy_seconds(records)
        flops, spent = [], 0.0
        for record in records:
            spent += record.trial.flops * record.result.steps / record.trial.num_steps
            flops.append(spent)
        agrees = [order(trials, records[: count + 1]) == verdict for count in range(len(records))]
        since = len(agrees) - next((n for n, same in enumerate(reversed(agrees)) if not same), len(agrees))
        reached = since < len(agrees)
        rows.append(
            {
                "race": race,
                "trainings": len(records),
                "wall s": round(seconds[-1]),
                "FLOPs": flops[-1],
                "verdict after trainings": since + 1 if reached else "never",
                "verdict, wall s": round(seconds[since]) if reached else "never",
                "verdict, FLOPs": flops[since] if reached else "never",
            }
        )
    print(_results.table(rows))
    command = shlex.join(["python", "benchmarks/time_to_verdict.py", *sys.argv[1:]])
    settings = {"verdict": " > ".join(verdict)}
    print(
        _results.write(
            "time-to-verdict", "Time until the ranking is that of the exhaustive run", command, settings, rows, args.json
        )
    )


if __name__ == "__main__":
    main()
