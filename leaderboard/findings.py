"""Answers from the board: whether its scores predict its losses, which tasks suffice, what a score says of the loss, hybrids.

    python leaderboard/findings.py

Reads board.db and trains nothing. Every table of docs/does-mad-predict.md that is about the board is printed by it.
"""

import argparse
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

import archlab

COVERAGE = 0.8
"""Of a dozen architectures, leave-one-out intervals of 95 % would be infinite."""
HYBRIDS = {
    "striped-hyena": ("hyena", "transformer++"),
    "striped-mh-hyena": ("mh-hyena", "transformer++"),
    "striped-mamba": ("mamba", "transformer++"),
    "striped-gated-deltanet": ("gated-deltanet", "transformer++"),
    "gated-deltanet-3-to-1": ("gated-deltanet", "transformer++"),
}
"""Hybrids with the two architectures of their mixers."""


def profiles(scores: "archlab.Scores") -> pd.DataFrame:
    """Scores in percent: architectures down, tasks across; architectures without a complete score are left out."""
    found = {
        one["name"] or one["architecture"]: {task: 100 * cell["score"] for task, cell in one["tasks"].items()}
        for one in scores.to_dict()["architectures"]
        if one["complete"]
    }
    return pd.DataFrame.from_dict(found, orient="index")


def subsets(scores: pd.DataFrame, loss: pd.Series | None, flops: dict[str, float]) -> pd.DataFrame:
    """For every number of tasks the subset whose mean agrees best with the mean of all, its FLOPs, and its tau with the loss."""
    full = scores.mean(axis=1)
    rows = []
    for number in range(1, scores.shape[1] + 1):
        means = {chosen: scores[list(chosen)].mean(axis=1) for chosen in combinations(scores.columns, number)}
        agreement = {chosen: kendalltau(mean, full).statistic for chosen, mean in means.items()}
        best = max(agreement, key=agreement.__getitem__)
        row = {
            "tasks": ", ".join(best),
            "tau with all": agreement[best],
            "FLOPs": sum(flops[t] for t in best) / sum(flops.values()),
        }
        if loss is not None:
            both = loss.index.intersection(scores.index)
            row["tau with loss"] = -kendalltau(means[best][both], loss[both]).statistic
        rows.append(row)
    return pd.DataFrame(rows)


def predicted(score: pd.Series, loss: pd.Series) -> pd.DataFrame:
    """The loss of each architecture from a line through the others, with the jackknife+ interval (arXiv 1905.02928, eq. 1.4)."""
    names = score.index.intersection(loss.index)
    x, y, n = score[names].to_numpy(), loss[names].to_numpy(), len(names)

    def line(keep: np.ndarray, at: float) -> float:
        slope, start = np.polyfit(x[keep], y[keep], 1)
        return float(slope * at + start)

    rows = []
    for i, name in enumerate(names):
        others = np.delete(np.arange(n), i)
        low, high = [], []
        for j in others:
            rest = others[others != j]
            residual, centre = abs(y[j] - line(rest, x[j])), line(rest, x[i])
            low.append(centre - residual)
            high.append(centre + residual)
        rank = math.ceil(COVERAGE * n)  # of the n - 1 others
        interval = (sorted(low, reverse=True)[rank - 1], sorted(high)[rank - 1]) if rank <= n - 1 else (-math.inf, math.inf)
        rows.append(
            {"architecture": name, "loss": y[i], "predicted": line(others, x[i]), "low": interval[0], "high": interval[1]}
        )
    return pd.DataFrame(rows).assign(held=lambda t: (t.low <= t.loss) & (t.loss <= t.high))


def from_parts(scores: pd.DataFrame) -> pd.DataFrame:
    """Hybrids beside the better of their parts on every task, and beside the mean of their parts."""
    rows = []
    for hybrid, parts in HYBRIDS.items():
        if {hybrid, *parts} <= set(scores.index):
            best, mean = scores.loc[list(parts)].max().mean(), scores.loc[list(parts)].to_numpy().mean()
            rows.append({"hybrid": hybrid, "score": scores.loc[hybrid].mean(), "better part of each task": best, "mean": mean})
    return pd.DataFrame(rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path(__file__).parent / "board.db")
    parser.add_argument("--run", help="number or label of the run of MAD trials; default: the widest")
    args = parser.parse_args()
    with archlab.open(args.store) as results:
        scores = profiles(results.scores(args.run))
        protocol = results.plan(args.run).protocol
    flops = {task: archlab.preview("transformer++", protocol, tasks=[task], store=args.store).flops for task in scores.columns}
    loss = None
    try:
        found = archlab.correlate(args.store, args.store, run=args.run)
    except archlab.ArchlabError as error:
        print(f"without losses: {error}")
    else:
        print(found.headline)
        print(
            found.to_frame()[["score", "outcome", "architectures", "tau", "tau_low", "tau_high", "p_holm", "verdict"]].to_string()
        )
        last = [row for row in found.to_dict()["rows"] if row["score"] == "mean"][-1]
        loss = pd.Series({point["architecture"]: point["outcome"] for point in last["points"]}, name=last["outcome"])
    print(subsets(scores, loss, flops).to_string())
    if loss is not None and len(loss) > 4:
        table = predicted(scores.mean(axis=1), loss)
        print(table.to_string())
        width, span = (table.high - table.low).median(), loss.max() - loss.min()
        print(f"intervals for {COVERAGE:.0%}: {table.held.mean():.0%} held; median width {width:.3f}, losses span {span:.3f}")
    print(from_parts(scores).to_string())


if __name__ == "__main__":
    main()
