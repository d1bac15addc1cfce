"""Gain of torch.compile in a training step, cost of compiling, and the number of steps after which it pays."""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
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

SHAPES = ((32, 32, 64), (128, 128, 128))
"""Batch, length, width: about those of the protocol quick, and the base recall setting of paper."""


def program(trial: Trial) -> Eager:
    examples = Examples.of(*split_tensors(trial.setting, "train", trial.recipe.batch_size, trial.seed, trial.device))
    return Eager([make_learner(trial, examples)])


def compare(mixer: str, shape: tuple[int, int, int], rounds: int) -> Mapping[str, str | float]:
    """Milliseconds a step, measured in turns; the first compiled step is the compilation."""
    batch, length, dim = shape
    trial = Trial(
        architecture=architecture(f"{mixer} swiglu {mixer} swiglu"),
        setting=setting("in-context-recall", vocab_size=16, length=length, num_train_examples=batch),
        recipe=Recipe(batch_size=batch),
        dim=dim,
        learning_rate=1e-3,
        weight_decay=0.1,
        seed=0,
    )
    eager, compiled = program(trial), program(replace(trial, recipe=replace(trial.recipe, compiled=True)))
    batches = [torch.arange(batch)]
    started = time.perf_counter()
    compiled.step(batches)
    cost = time.perf_counter() - started
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for one, seconds in zip((eager, compiled), times, strict=True):
            started = time.process_time()
            one.step(batches).tolist()
            seconds.append(time.process_time() - started)
    slow, fast = (median(seconds[2:]) for seconds in times)
    return {
        "mixer": mixer,
        "batch x length, width": f"{batch} x {length}, {dim}",
        "eager, ms": round(1e3 * slow, 1),
        "compiled, ms": round(1e3 * fast, 1),
        "times faster": round(slow / fast, 2),
        "compiling, s": round(cost, 1),
        "pays after, steps": f"{cost / (slow - fast):,.0f}" if fast < 0.98 * slow else "never",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixers", nargs="+", default=["mh-attention(heads=2)", "mh-attention", "hyena", "mamba"])
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each, in turns (default: 9)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for mixer in args.mixers:
        for shape in SHAPES:
            print(f"{mixer} {shape} ...", file=sys.stderr, flush=True)
            rows.append(compare(mixer, shape, args.rounds))
    print(_results.table(rows))
    settings = {"architecture": "X swiglu X swiglu", "time": "of a step CPU time, one thread; of compiling wall time"}
    written = _results.write(
        "compiled",
        "What torch.compile gains",
        " ".join(["python benchmarks/compiled.py", *sys.argv[1:]]),
        settings,
        rows,
        args.json,
    )
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
