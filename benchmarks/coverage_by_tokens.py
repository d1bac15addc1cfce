"""How often 95 % intervals of `archlab scale compare` hold the truth where nearly every run has a budget of its own.

    python benchmarks/coverage_by_tokens.py

Simulated studies of two architectures whose laws differ by 5 % in the factor of the size: seven sizes of 100M to 3G parameters,
each trained on 5, 10, 20, 40 and 80 tokens a parameter, with errors of 0.005 nats. Each study is a table that is imported.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

import _results
from archlab import scaling
from coverage import Truth

LAWS = {"a": Truth(1.7, 406, 410, 0.34, 0.28), "b": Truth(1.7, 406 * 1.05, 410, 0.34, 0.28)}
ASKED = (1e19, 1e20, 1e21, 1e22)
NOISE = 0.005


def table(seed: int) -> str:
    """The runs of a study as CSV."""
    rng = np.random.default_rng(seed)
    rows = ["architecture,params,tokens,loss"]
    for name, law in LAWS.items():
        for size in np.geomspace(1e8, 3e9, 7):
            rows += [
                f"{name},{size:.6e},{tokens:.6e},{law.loss(size, tokens) + NOISE * rng.normal():.6f}"
                for tokens in size * np.array([5, 10, 20, 40, 80])
            ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    args = parser.parse_args()
    held: dict[str, list[bool]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.studies):
            path = Path(folder) / "runs.csv"
            path.write_text(table(seed), encoding="utf-8")
            found = scaling.compare(scaling.read_runs(path), reference="a", resamples=args.resamples, flops=ASKED)
            for row in found.rows:
                asked = [flops for flops in ASKED if np.isclose(flops, row.budget)]
                truth = LAWS["b"].least(row.budget) - LAWS["a"].least(row.budget)
                if row.difference.low is not None and row.difference.high is not None:
                    name = f"{asked[0]:.0e}" if asked else "budgets of the runs"
                    held[name].append(bool(row.difference.low <= truth <= row.difference.high))
    rows = [{"FLOPs": name, "intervals": len(one), "held": float(np.mean(one))} for name, one in sorted(held.items())]
    settings = {"studies": args.studies, "resamples": args.resamples, "noise": NOISE}
    print(_results.table(rows))
    title = "Do intervals hold where every run has its own budget?"
    print(_results.write("coverage-by-tokens", title, "python benchmarks/coverage_by_tokens.py", settings, rows))
