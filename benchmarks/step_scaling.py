"""Growth of the time of a training step with length, width and vocabulary."""

import argparse
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch

import _results
from archlab import architecture
from archlab.mad.learner import Examples, split_tensors
from archlab.mad.programs import Eager
from archlab.mad.recipe import Recipe
from archlab.mad.train import make_learner
from archlab.mad.trial import Trial
from archlab.tasks import setting

BATCH = 16
BASE = {"length": 128, "width": 128, "vocabulary": 64}
VALUES = {"length": (64, 128, 256, 512, 1024), "width": (64, 128, 256, 512), "vocabulary": (64, 1024, 4096, 16384)}


def step_seconds(mixer: str, shape: Mapping[str, int], rounds: int) -> float:
    """CPU time of a step, the median of a few."""
    trial = Trial(
        architecture=architecture(f"{mixer} swiglu"),
        setting=setting("memorization", vocab_size=shape["vocabulary"], length=shape["length"], num_train_examples=BATCH),
        recipe=Recipe(batch_size=BATCH),
        dim=shape["width"],
        learning_rate=1e-3,
        weight_decay=0.1,
        seed=0,
    )
    examples = Examples.of(*split_tensors(trial.setting, "train", BATCH, 0, "cpu"))
    program, rows = Eager([make_learner(trial, examples)]), torch.arange(BATCH)
    times = []
    for _ in range(rounds + 2):
        started = time.process_time()
        program.step([rows]).tolist()
        times.append(time.process_time() - started)
    return median(times[2:])


def grow(mixer: str, what: str, rounds: int) -> Mapping[str, str | float]:
    """Milliseconds a step along one axis, and the exponent of the last doubling."""
    seconds = {value: step_seconds(mixer, BASE | {what: value}, rounds) for value in VALUES[what]}
    (small, fast), (large, slow) = list(seconds.items())[-2:]
    return {
        "mixer": mixer,
        "grows": what,
        "values": " ".join(f"{value}" for value in seconds),
        "ms a step": " ".join(f"{1e3 * value:.0f}" for value in seconds.values()),
        "exponent at the end": round(math.log(slow / fast) / math.log(large / small), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixers", nargs="+", default=["mh-attention(heads=4)", "hyena", "mamba", "gated-deltanet"])
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for mixer in args.mixers:
        for what in VALUES:
            print(f"{mixer}, {what} ...", file=sys.stderr, flush=True)
            rows.append(grow(mixer, what, args.rounds))
    print(_results.table(rows))
    settings = {"architecture": "X swiglu", "task": "memorization", "batch": BATCH, "base": str(BASE), "time": "CPU, one thread"}
    command = " ".join(["python benchmarks/step_scaling.py", *sys.argv[1:]])
    written = _results.write("step-scaling", "How a training step grows", command, settings, rows, args.json)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
