"""Agreement of a leaderboard of the quick protocol with a published table of MAD scores.

    python benchmarks/published_tables.py --store results.db

Trains nothing. Prints the scores of the store's latest run beside the published ones, for the architectures that both have, and
Kendall's tau-b of the two rankings for each task: with an interval that resamples our scores (the published ones have none), and
with the probability of so high an agreement between unrelated rankings.

The published scores are those of lin-attn-bench (branch mad): layers of flash-linear-attention in the reference code's
protocol, 66 settings at width 128, two blocks of a mixer and SwiGLU, one head, macro accuracy.
"""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import archlab
from _results import table, write
from archlab.errors import ArchlabError
from archlab.mad.architecture_score import ArchitectureScore
from archlab.mad.bootstrap import percentile_interval
from archlab.mad.scores import Scores

TASKS = (
    "compression",
    "fuzzy-in-context-recall",
    "in-context-recall",
    "memorization",
    "noisy-in-context-recall",
    "selective-copying",
)
PUBLISHED = {
    "Transformer": (0.432, 0.565, 0.905, 0.788, 0.897, 0.998),
    "MesaNet": (0.347, 0.515, 0.999, 0.750, 0.999, 0.894),
    "mLSTM": (0.478, 0.237, 1.0, 0.896, 1.0, 0.870),
    "RWKV-7": (0.462, 0.180, 0.999, 0.886, 0.999, 0.949),
    "Mamba": (0.491, 0.123, 0.993, 0.896, 0.997, 0.887),
    "Gated DeltaNet": (0.435, 0.286, 0.999, 0.552, 0.999, 0.997),
    "DeltaNet": (0.396, 0.393, 0.999, 0.394, 0.999, 0.997),
    "GLA": (0.408, 0.155, 0.918, 0.771, 0.931, 0.891),
    "GSA": (0.397, 0.212, 0.769, 0.831, 0.821, 0.852),
}
"""By task, in the order of ``TASKS``."""
OURS = {
    "Transformer": "mh-attention",
    "MesaNet": "mesa-net",
    "mLSTM": "mlstm",
    "RWKV-7": "rwkv-7",
    "Mamba": "mamba",
    "Gated DeltaNet": "gated-deltanet",
    "DeltaNet": "deltanet",
    "GLA": "mh-gated-linear-attention",
    "GSA": "gsa",
}
"""The first layer of the architecture that stands for each of them."""


def counterparts(scores: Scores) -> dict[str, ArchitectureScore]:
    """The complete architectures of the leaderboard that the table has too."""
    found = {}
    for name, layer in OURS.items():
        mine = [a for a in scores.architectures if a.complete and {one.name for one in a.architecture.layers[::2]} == {layer}]
        if len(mine) > 1:
            raise ArchlabError(f"{', '.join(a.label for a in mine)}: several stand for {name}; keep one in a store of its own")
        if mine:
            found[name] = mine[0]
    if len(found) < 3:
        raise ArchlabError(f"{len(found)} architectures are complete and in the table: a ranking needs at least 3")
    return found


def agreement(task: int, ours: dict[str, ArchitectureScore]) -> dict[str, str | float]:
    """Tau-b over the architectures, of a task or (``len(TASKS)``) of the mean."""
    theirs = [(*PUBLISHED[name], np.mean(PUBLISHED[name]))[task] for name in ours]
    columns = [next((t for t in a.tasks if TASKS[task : task + 1] == (t.task,)), a) for a in ours.values()]
    found = kendalltau([column.score for column in columns], theirs)
    samples = np.stack([column.samples for column in columns], axis=1)
    taus = np.array([kendalltau(sample, theirs).statistic for sample in samples])
    interval = percentile_interval(taus[np.isfinite(taus)])
    return {
        "task": (*TASKS, "mean")[task],
        "tau": f"{found.statistic:.2f}",
        "95 % interval": f"{interval.low:.2f} to {interval.high:.2f}",
        "p": f"{found.pvalue:.3f}",
    } | {
        f"{name} = {mine.label}": f"{100 * column.score:.1f} / {100 * their:.1f}"
        for (name, mine), column, their in zip(ours.items(), columns, theirs, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="archlab.db", help="with a finished run (default: archlab.db)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    options = parser.parse_args()
    try:
        with archlab.open(options.store) as store:
            plan, scores = store.plan(), store.scores()
        ours = counterparts(scores)
    except ArchlabError as error:
        parser.error(str(error))
    rows = [agreement(task, ours) for task in range(len(TASKS) + 1)]
    print(table(rows))
    settings = {
        "protocol": f"{plan.protocol.name}, {len(plan.protocol.seeds)} seeds",
        "columns of architectures": "this project's score / the published one, %",
    }
    command = shlex.join(["python", "benchmarks/published_tables.py", *sys.argv[1:]])
    written = write("published-tables", "Agreement with a published table of MAD scores", command, settings, rows, options.json)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
