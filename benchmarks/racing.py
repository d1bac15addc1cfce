"""Savings of racing, and its effect on scores: one protocol run exhaustively, by exact racing and by halving.

    python benchmarks/racing.py --grid lr=8e-3,4e-3,2e-3 --seeds 1 --store racing

Each kind of race has a store of its own (``racing-off.db`` and so on), so that every trial is really trained; the same command
resumes. Exact racing must give the scores of the exhaustive run. For halving, the differences and Kendall's tau-b of the ranking
are printed.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import get_args

from scipy.stats import kendalltau

import _results
import archlab
from archlab.cli.options import narrowed
from archlab.errors import ArchlabError
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol
from archlab.mad.racing import Race
from archlab.mad.scores import Scores

ARCHITECTURES = ["transformer++", "striped-mh-hyena", "mh-hyena", "hyena"]


def task_scores(scores: Scores, labels: list[str]) -> dict[str, list[float]]:
    """By task, and for the mean, the scores of the architectures in the given order."""
    found = {architecture.label: architecture for architecture in scores.architectures}
    columns = {task: [found[label].tasks[i].score or 0.0 for label in labels] for i, task in enumerate(scores.tasks)}
    return columns | {"mean": [found[label].score or 0.0 for label in labels]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=ARCHITECTURES, help="catalogue names or specs")
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--tasks", help="only these, as in `archlab run`")
    parser.add_argument("--grid", action="append", help="as in `archlab run`; quick's own grid has one point")
    parser.add_argument("--seeds", help="as in `archlab run`")
    parser.add_argument("--set", action="append", dest="changes", help="as in `archlab run`")
    parser.add_argument("--workers", type=int, help="trials at once; default: one a core")
    parser.add_argument("--store", type=Path, default=Path("racing"), help="the stores are this and -off.db, ...")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    try:
        protocol = narrowed(load_protocol(args.protocol), args.tasks, "all", args.grid, args.seeds, args.changes)
        plan = make_plan(protocol, args.architectures)
    except ArchlabError as error:
        parser.error(str(error))
    labels = [architecture.label for architecture in plan.architectures]
    exhaustive: dict[str, list[float]] = {}
    rows = []
    for race in reversed(get_args(Race)):
        path = args.store.with_name(f"{args.store.name}-{race}.db")
        scores = archlab.run(plan.architectures, protocol, store=path, race=race, workers=args.workers)
        seconds = sum(record.result.cpu_seconds for record in scores.records if record.result is not None)
        found = task_scores(scores, labels)
        exhaustive = exhaustive or found
        differences = {task: max(abs(a - b) for a, b in zip(found[task], exhaustive[task], strict=True)) for task in found}
        taus = [kendalltau(found[task], exhaustive[task]).statistic for task in scores.tasks]
        spent = scores.spending
        rows.append(
            {
                "race": race,
                "trials": spent.trials_started,
                "of": spent.trials,
                "dropped": spent.dropped,
                "FLOPs": spent.flops_spent,
                "CPU s": round(seconds),
                "largest difference, task": round(max(differences.values()), 4),
                "largest difference, mean": round(differences["mean"], 4),
                "tau of tasks, mean": round(sum(taus) / len(taus), 3),
                "tau of means": round(float(kendalltau(found["mean"], exhaustive["mean"]).statistic), 3),
            }
        )
    for row in rows:
        row["times fewer FLOPs"] = round(rows[0]["FLOPs"] / row["FLOPs"], 2)
    print(_results.table(rows))
    command = shlex.join(["python", "benchmarks/racing.py", *sys.argv[1:]])
    settings = {"architectures": ", ".join(labels), "protocol": protocol.name, "seeds": len(protocol.seeds)}
    settings |= {f"grid of {task}": len(tp.grid.points()) for task, tp in protocol.tasks.items()}
    print(_results.write("racing", "What racing saves, and whether the scores stay the same", command, settings, rows, args.json))


if __name__ == "__main__":
    main()
