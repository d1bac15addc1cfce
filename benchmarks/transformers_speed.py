"""Forward and backward time of layers beside the modules of transformers that compute the same, on one CPU thread.

Layer and module pass the same 32 sequences of width 128 in turns in one process; times are medians of processor time, ratios
those of neighbouring passes. Without its GPU kernels transformers computes by PyTorch's operations, as this project does.

    make crosscheck
    .venv-crosscheck/bin/python benchmarks/transformers_speed.py
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from torch import nn

import _results
from _layer_pass import BATCH, DIM, environment, inputs, seconds, start_as_worker
from archlab.layers import layer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.crosschecks import counterparts

LAYERS: dict[str, Callable[[nn.Module], counterparts.Counterpart]] = {
    "mamba": counterparts.mamba,
    "mamba-2": counterparts.mamba2,
    "gated-deltanet": counterparts.gated_deltanet,
}


def measure(name: str, length: int, rounds: int) -> dict[str, str | float]:
    torch.manual_seed(0)
    ours, x_bld = layer(name).build(DIM, length), inputs(length, "cpu")
    theirs, run, _ = LAYERS[name](ours)
    with environment("cpu", bf16=False):
        times = [(seconds(ours, nn.Module.__call__, x_bld, "cpu"), seconds(theirs, run, x_bld, "cpu")) for _ in range(rounds + 1)]
    mine, published = (median(taken) for taken in zip(*times[1:], strict=True))  # the first is not like the others
    return {
        "layer": name,
        "length": str(length),
        "ours, ms": round(1e3 * mine, 2),
        "transformers, ms": round(1e3 * published, 2),
        "times faster": round(median(b / a for a, b in times[1:]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[128], help="default: 128")
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    args = parser.parse_args()
    if min(args.rounds, *args.lengths) < 1:
        parser.error("--rounds and --lengths must be at least 1")
    if not find_spec("transformers"):
        parser.error("transformers cannot be imported: make crosscheck, then .venv-crosscheck/bin/python " + sys.argv[0])
    start_as_worker()
    counterparts.DIM = DIM
    rows = [measure(name, length, args.rounds) for length in args.lengths for name in LAYERS]
    print(_results.table(rows))
    settings = {
        "transformers": version("transformers"),
        "batch": BATCH,
        "width": DIM,
        "dtype": "float32",
        "time": "CPU time, one thread, in the environment of a worker",
        "times faster": "median of the ratios of neighbouring passes, transformers' over ours",
    }
    command = shlex.join(["python", "benchmarks/transformers_speed.py", *sys.argv[1:]])
    written = _results.write("transformers-speed", "Layers beside those of transformers", command, settings, rows)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
