"""Instances of each task drawn a second, against a generator of one instance at a time.

    python -m benchmarks.data_generation
    python -m benchmarks.data_generation --json results.json

Both generators of a row draw training data in turns in one process, on one thread. A rate is the median over the rounds, in
processor seconds, so other programs on the machine matter little. The generators of one instance at a time are plain Python
and draw one token or pair a call; where one NumPy call can draw all random numbers of an instance, that is measured too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks._results import table, write
from tests.oracles.tasks import GENERATORS, NUMPY_GENERATORS, Generator

from archlab.tasks import Task, setting

LARGEST = {
    "in-context-recall": {"vocab_size": 128, "length": 1024},
    "noisy-in-context-recall": {"vocab_size": 144, "length": 1024, "frac_noise": 0.8},
    "fuzzy-in-context-recall": {"length": 1024},
    "selective-copying": {"vocab_size": 128, "length": 1024, "num_tokens_to_copy": 96},
    "compression": {"vocab_size": 128, "length": 256},
    "memorization": {"vocab_size": 8192},
}
"""Every knob at its largest value in the paper's settings; fuzzy recall's vocabulary has rows of its own."""
FUZZY = "fuzzy-in-context-recall"
TASKS = [
    *(task for name, knobs in LARGEST.items() for task in (setting(name), setting(name, **knobs))),
    setting(FUZZY, vocab_size=128),
    setting(FUZZY, vocab_size=128, length=1024),
]
BATCH_OF_TOKENS = 1 << 19
"""Tokens of a vectorised draw: about a tenth of a training set."""


def instances_per_second(draw: Callable[[], int], seconds: float) -> float:
    """Of calls that return how many they drew, repeated for at least so long."""
    drawn, begin = 0, time.process_time()
    while (elapsed := time.process_time() - begin) < seconds or not drawn:
        drawn += draw()
    return drawn / elapsed


def measure(task: Task, generator: Generator, rounds: int, seconds: float) -> dict[str, str | int | float]:
    rng = np.random.default_rng(0)
    n = max(1, BATCH_OF_TOKENS // task.length)

    def vectorised() -> int:
        return len(task.generate(rng, n, training=True)[0])

    def one_at_a_time() -> int:
        np.array(generator(task, rng, True))
        return 1

    vectorised()
    rates = [(instances_per_second(vectorised, seconds), instances_per_second(one_at_a_time, seconds)) for _ in range(rounds)]
    fast, slow = (statistics.median(rate) for rate in zip(*rates, strict=True))
    return {
        "setting": str(task),
        "archlab (1/s)": round(fast),
        "one at a time": "NumPy" if generator in NUMPY_GENERATORS.values() else "Python",
        "(1/s)": round(slow, 1),
        "ratio": statistics.median(a / b for a, b in rates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each generator")
    parser.add_argument("--seconds", type=float, default=0.5, help="shortest time of a measurement")
    parser.add_argument("--json", type=Path, help="write the figures here, and as Markdown beside it")
    arguments = parser.parse_args()
    rows = []
    for task in TASKS:
        generators = [known[task.name] for known in (GENERATORS, NUMPY_GENERATORS) if task.name in known]
        rows += [measure(task, generator, arguments.rounds, arguments.seconds) for generator in generators]
        print(f"{task} measured", file=sys.stderr)
    print(table(rows))
    if arguments.json:
        measured = {"rounds": arguments.rounds, "seconds": arguments.seconds, "numpy": np.__version__}
        command = "python -m benchmarks.data_generation --json " + str(arguments.json)
        write("data-generation", "Instances drawn a second", command, measured, rows, arguments.json)


if __name__ == "__main__":
    main()
