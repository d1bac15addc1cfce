"""Time of trials stacked into one program, against one after the other, in turns in one process."""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import torch

import _results
from archlab import architecture
from archlab.mad.learner import Examples, Learner, split_tensors
from archlab.mad.programs import Eager, Stacked
from archlab.mad.recipe import Recipe
from archlab.mad.train import make_learner
from archlab.mad.trial import Trial
from archlab.tasks import setting

SHAPES = ((8, 16, 32), (32, 32, 64), (128, 128, 128))
"""Batch, length, width: of the protocols smoke, quick and paper, about."""


def learner(trial: Trial) -> Learner:
    examples = Examples.of(*split_tensors(trial.setting, "train", trial.recipe.batch_size, trial.seed, trial.device))
    return make_learner(trial, examples)


def compare(mixer: str, shape: tuple[int, int, int], members: int, rounds: int, device: str) -> Mapping[str, str | float]:
    """Milliseconds a step of all members."""
    batch, length, dim = shape
    trial = Trial(
        architecture=architecture(f"{mixer} swiglu"),
        setting=setting("in-context-recall", vocab_size=16, length=length, num_train_examples=batch),
        recipe=Recipe(batch_size=batch),
        dim=dim,
        learning_rate=1e-3,
        weight_decay=0.1,
        seed=0,
        device="cuda" if device == "cuda" else "cpu",
    )
    programs = [kind([learner(replace(trial, seed=seed)) for seed in range(members)]) for kind in (Stacked, Eager)]
    batches = [torch.arange(batch, device=device)] * members
    clock = time.perf_counter if device == "cuda" else time.process_time
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for program, seconds in zip(programs, times, strict=True):
            started = clock()
            program.step(batches).tolist()
            seconds.append(clock() - started)
    stacked, apart = (seconds[2:] for seconds in times)
    low, _, high = quantiles((b / a for a, b in zip(stacked, apart, strict=True)), n=4)
    return {
        "mixer": mixer,
        "batch x length, width": f"{batch} x {length}, {dim}",
        "stacked, ms": round(1e3 * median(stacked), 1),
        "one after the other, ms": round(1e3 * median(apart), 1),
        "times faster": round(median(apart) / median(stacked), 2),
        "quartiles": f"{low:.2f} to {high:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixers", nargs="+", default=["mh-attention(heads=2)", "hyena", "mamba", "linear-attention"])
    parser.add_argument("--members", type=int, default=6, help="trainings together (default: 6)")
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each, in turns (default: 9)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for mixer in args.mixers:
        for shape in SHAPES:
            print(f"{mixer} {shape} ...", file=sys.stderr, flush=True)
            rows.append(compare(mixer, shape, args.members, args.rounds, args.device))
    print(_results.table(rows))
    settings = {"architecture": "X swiglu", "members": args.members, "device": args.device, "time": "CPU time, one thread"}
    command = " ".join(["python benchmarks/population.py", *sys.argv[1:]])
    written = _results.write(f"population-{args.device}", "Trainings together", command, settings, rows, args.json)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
