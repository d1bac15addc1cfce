"""Time until the ranking is that of the exhaustive run, with and without racing.

    archlab run transformer++ hyena mamba --grid lr=8e-3,4e-3,2e-3 --seeds 1 --race off --store off.db
    python benchmarks/time_to_verdict.py --store off.db

Replays the trials of an exhaustive run through the scheduler, once for every kind of race, on one worker: instead of training,
the stored result is taken, cut at the step where the race drops the trial. So all races are compared on the same trials, and
other programs do not matter. The verdict is the order of the architectures by MAD score at the end of the exhaustive
run; an architecture without a score is last. The time to the verdict is the processor time and the FLOPs spent when the order
becomes the verdict and stays so.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import _results
import archlab
from archlab.jobs.events import Event, JobFinished
from archlab.jobs.executor import Executor
from archlab.jobs.scheduler import run
from archlab.mad.racing import Race, Racing
from archlab.mad.scoring import score
from archlab.mad.store import Record, TrialStore
from archlab.mad.trial import Progress, Trial, TrialResult


class Replay(Executor[Trial, Progress, TrialResult]):
    """An executor that knows all results."""

    num_workers = 1

    def __init__(self, results: Mapping[str, TrialResult]) -> None:
        self.results = results

    def submit(self, jobs, on_progress, thresholds=None) -> list[Future[TrialResult]]:
        futures: list[Future[TrialResult]] = []
        for trial, own in zip(jobs, thresholds or [{}] * len(jobs), strict=True):
            futures.append(Future())
            futures[-1].set_result(cut(self.results[trial.key], own))
        return futures

    def stop(self, future) -> None:
        """Nothing is ever under way."""

    def shutdown(self, grace: float = 0.0) -> None:
        """Nothing is ever under way."""


def cut(result: TrialResult, thresholds: Mapping[int, float]) -> TrialResult:
    """The result as it would be with these pruning thresholds."""
    for number, point in enumerate(result.curve, start=1):
        if point.metrics.loss > thresholds.get(point.step, float("inf")) and point.step < result.steps:
            fraction = point.step / result.steps
            return replace(
                result,
                status="dropped",
                steps=point.step,
                solved_step=None,
                selected_step=point.step,
                selected=point.metrics,
                curve=result.curve[:number],
                cpu_seconds=fraction * result.cpu_seconds,
                wall_seconds=fraction * result.wall_seconds,
            )
    return result


def replay(trials: list[Trial], results: Mapping[str, TrialResult], race: Race) -> tuple[list[Record], list[TrialResult]]:
    """What a run with this race would have stored, in the order in which trials end."""
    order: list[tuple[str, TrialResult]] = []

    def listen(event: Event) -> None:
        if isinstance(event, JobFinished):
            order.append((event.job.key, event.result))

    with TemporaryDirectory() as folder, TrialStore(Path(folder) / "replay.db") as store:
        run(trials, store, Replay(results), policy=Racing(trials, race), listeners=[listen])
        records = {record.key: record for record in store.records()}
    return [records[key] for key, _ in order], [result for _, result in order]


def ranking(trials: list[Trial], records: list[Record]) -> list[str]:
    """The architectures, best first; those without a score last, by name."""
    scores = score([(record.job, record) for record in records], resamples=100)
    ranked = sorted(scores.architectures, key=lambda a: (-(a.score if a.score is not None else -1.0), a.label))
    return [architecture.label for architecture in ranked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="of a finished `archlab run --race off`")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    with archlab.open(args.store) as opened:
        trials = opened.plan().trials()
    with TrialStore(args.store, create=False) as store:
        known = {record.key: record.result for record in store.records(keys=[trial.key for trial in trials])}
    results = {key: result for key, result in known.items() if result is not None}
    lacking = [trial for trial in trials if trial.key not in results]
    if lacking:
        parser.error(f"{args.store} lacks {len(lacking)} of {len(trials)} trials of its run: finish it, with --race off")
    rows, verdict = [], []
    for race in reversed(get_args(Race)):
        records, found = replay(trials, results, race)
        verdict = verdict or ranking(trials, records)
        seconds, flops, spent_seconds, spent_flops = [], [], 0.0, 0.0
        for record, result in zip(records, found, strict=True):
            spent_seconds += result.cpu_seconds
            spent_flops += record.job.flops * result.steps / record.job.num_steps
            seconds.append(spent_seconds)
            flops.append(spent_flops)
        agrees = [ranking(trials, records[: count + 1]) == verdict for count in range(len(records))]
        since = len(agrees) - next((n for n, same in enumerate(reversed(agrees)) if not same), len(agrees))
        reached = since < len(agrees)
        rows.append(
            {
                "race": race,
                "trials": len(records),
                "CPU s": round(seconds[-1]),
                "FLOPs": flops[-1],
                "verdict after trials": since + 1 if reached else "never",
                "verdict, CPU s": round(seconds[since]) if reached else "never",
                "verdict, FLOPs": flops[since] if reached else "never",
                "order at the end": " > ".join(ranking(trials, records)),
            }
        )
    print(_results.table(rows))
    command = shlex.join(["python", "benchmarks/time_to_verdict.py", *sys.argv[1:]])
    settings = {"architectures": len(verdict), "trials": len(trials), "verdict": " > ".join(verdict)}
    title = "Time until the ranking is that of the exhaustive run"
    print(_results.write("time-to-verdict", title, command, settings, rows, args.json))


if __name__ == "__main__":
    main()
