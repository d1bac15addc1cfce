"""Fraction of 95 % intervals that hold the truth, where the spread between seeds dominates.

    python benchmarks/interval_coverage.py

Simulated: the true accuracy of each seed is normal around 0.6 with a standard deviation of ten points, and each of the four
answers of 100 test units is right with this probability. Intervals are those of one setting and of the mean over six.
"""

import argparse

import numpy as np

from archlab.mad.bootstrap import Units, percentile_interval, resampled_means

TRUTH, SPREAD, UNITS, ANSWERS = 0.6, 0.1, 100, 4


def covered(rng: np.random.Generator, num_seeds: int, num_settings: int, resamples: int) -> bool:
    """Whether the interval of one simulated experiment holds the truth."""
    rows = []
    for setting in range(num_settings):
        accuracies = np.clip(rng.normal(TRUTH, SPREAD, num_seeds), 0, 1)
        cell = [
            Units(rng.binomial(ANSWERS, a, UNITS).astype(np.float32), np.full(UNITS, ANSWERS, np.float32)) for a in accuracies
        ]
        seed = int(rng.integers(1 << 30))
        rows.append(resampled_means([cell], resamples=resamples, seed=seed, stream=str(setting))[0])
    interval = percentile_interval(np.mean(rows, axis=0))
    return interval.low <= TRUTH <= interval.high


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=400)
    arguments = parser.parse_args()
    print("| seeds | one setting | mean over six settings |\n|---|---|---|")
    for num_seeds in (2, 3, 5):
        rng = np.random.default_rng(num_seeds)
        shares = [
            np.mean([covered(rng, num_seeds, settings, arguments.resamples) for _ in range(arguments.experiments)])
            for settings in (1, 6)
        ]
        print(f"| {num_seeds} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
