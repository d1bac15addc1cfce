"""Agreement of a protocol's ranking across seeds and with training several times longer.

    python benchmarks/protocol_calibration.py --store calibration.db --json benchmarks/results/NAME.json

Runs the protocol as it is, and again with LONGER times as many steps for every task (fewer seeds), over the given
architectures. Prints for each task Kendall's tau-b of the architectures' scores between seeds (mean over pairs of seeds), and
between the protocol and the longer training, with a bootstrap interval. Stored trials are not computed again.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import archlab
from _results import table, write
from archlab.mad.bootstrap import Floats, Interval, percentile_interval
from archlab.mad.protocol import Protocol, load_protocol

ARCHITECTURES = ["transformer++", "striped-mh-hyena", "mh-hyena", "hyena", "mamba", "gla"]


def longer(protocol: Protocol, times: int, seeds: int) -> Protocol:
    tasks = {
        name: replace(plan, recipe=replace(plan.recipe, steps=times * plan.recipe.num_steps(plan.settings[0].num_train_examples)))
        for name, plan in protocol.tasks.items()
    }
    return replace(protocol, name=f"{protocol.name} x {times}", tasks=tasks, seeds=protocol.seeds[:seeds])


def tau(first: Floats, second: Floats) -> float:
    """Kendall's tau-b; NaN where one side does not separate anything."""
    return float(kendalltau(first, second).statistic)


def interval_of_tau(first: Floats, second: Floats) -> Interval | None:
    """The 95 % interval from samples of the scores on both sides, ``(architectures, resamples)``.

    Noise can only disturb a ranking, so the samples lie below the tau of the true scores on average: the interval is cautious.
    """
    taus = np.array([tau(*columns) for columns in zip(first.T, second.T, strict=True)])
    known = taus[np.isfinite(taus)]
    return percentile_interval(known) if known.size else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=ARCHITECTURES, help="catalogue names or specs")
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--longer", type=int, default=4, help="how many times as long to train for comparison")
    parser.add_argument("--longer-seeds", type=int, default=1, help="seeds of the longer training")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    parser.add_argument("--workers", type=int, help="trials at once; default: one a core")
    parser.add_argument("--store", default="calibration.db")
    parser.add_argument("--json", type=Path, help="write the results here instead of benchmarks/results")
    options = parser.parse_args()

    protocol = load_protocol(options.protocol)
    if options.tasks:
        protocol = protocol.with_tasks(options.tasks)
    long_protocol = longer(protocol, options.longer, options.longer_seeds)
    short, long = (
        archlab.run(options.architectures, each, store=options.store, race="off", workers=options.workers)
        for each in (protocol, long_protocol)
    )

    sides = {id(scores): {a.label: a for a in scores.architectures} for scores in (short, long)}
    labels = list(sides[id(short)])
    rows = []
    for i, task in enumerate(short.tasks):
        per_seed = np.array([[s.score for s in sides[id(short)][label].tasks[i].settings[0].seeds] for label in labels])
        between = [tau(per_seed[:, a], per_seed[:, b]) for a, b in combinations(range(per_seed.shape[1]), 2)]
        found = [[own[label].tasks[i] for label in labels] for own in sides.values()]
        agreement = tau(*(np.array([one.score for one in own]) for own in found))
        rows.append(
            {
                "task": task,
                "tau between seeds": _shown(np.nanmean(between) if not np.isnan(between).all() else None),
                f"tau with x{options.longer}": _shown(None if np.isnan(agreement) else agreement),
                "95 % interval": _range(interval_of_tau(*(np.stack([one.samples for one in own]) for own in found))),
            }
            | {label: " / ".join(_percent(sides[id(side)][label].tasks[i].score) for side in (short, long)) for label in labels}
        )
    print(table(rows))
    write(
        "-".join(["calibration", protocol.name, *(options.tasks or [])]),
        f"Does the ranking of the {protocol.name} protocol mean something?",
        shlex.join(["python", "benchmarks/protocol_calibration.py", *sys.argv[1:]]),
        {
            "tau between seeds": "Kendall's tau-b between the architectures' scores from two seeds, mean over pairs of seeds",
            f"tau with x{options.longer}": f"the same with training {options.longer} times as long "
            f"({len(long_protocol.seeds)} seeds), with a bootstrap interval",
            "columns of architectures": f"test score in % / after {options.longer} times as many steps",
        },
        rows,
        options.json,
    )


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _range(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"


def _percent(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.1f}"


if __name__ == "__main__":
    main()
