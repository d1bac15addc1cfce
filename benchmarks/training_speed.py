"""Speed of a training step, against the reference code of the MAD paper (https://github.com/athms/mad-lab).

Both steps are forward, cross-entropy, backward, AdamW update and clearing of the gradients, on one batch of in-context recall, in
float32, with the same number of threads. They run in turns in one process, so that other programs affect both; ratios are those
of the medians. CPU time is that of all threads together. The fraction of GEMM is three times the forward pass's FLOPs by this
project's accounting, relative to a float32 product of square matrices on the same threads.

The reference code expects a GPU and compiled packages. Here its modules run unchanged on a CPU, with replacements for what cannot
be imported: flash_attn's multi-head attention by one on scaled_dot_product_attention, the Triton RMSNorm by torch's. Packages
that only its training loop needs are empty. Its metrics, logging and data loading are left out.

    git clone https://github.com/athms/mad-lab
    python benchmarks/training_speed.py --madlab mad-lab
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles

import torch

import _grid
import _madlab
import _results
from archlab import architecture
from archlab.machine import ceilings
from archlab.mad.learner import Examples, Learner
from archlab.mad.programs import Eager
from archlab.mad.recipe import Recipe
from archlab.tasks import sample, setting
from archlab.training.optimiser import make_optimizer

DIM, BATCH, LEARNING_RATE, WEIGHT_DECAY = 128, 128, 5e-4, 0.1
TASK = setting("in-context-recall", vocab_size=16, length=128)

PAIRS = {
    "mh-attention": "mh-attention",
    "hyena": "hyena",
    "mh-hyena(heads=8)": "mh-hyena",
    "mh-hyena": "mh-hyena",
    "linear-attention": "linear-attention",
    "mh-linear-attention": "mh-linear-attention",
}
"""A mixer here, and the reference layer it is compared with: the same shapes, but for mh-hyena, whose 16 heads of 8
are the paper's; the reference code, given 16 heads, runs 8 of 16."""


def stack(mixer: str) -> list[str]:
    return [mixer, "swiglu", mixer, "swiglu"]


def our_step(mixer: str) -> Callable[[], float]:
    """One step of this project's training loop; returns the loss."""
    inputs, targets = (torch.from_numpy(array) for array in sample(TASK, "train", BATCH, seed=0))
    recipe = Recipe()
    torch.manual_seed(0)
    model = architecture(" ".join(stack(mixer))).build(vocab_size=TASK.vocab_size, max_length=TASK.length, dim=DIM)
    optimizer = make_optimizer(model, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(recipe.beta1, recipe.beta2))
    program = Eager([Learner(model, optimizer, Examples.of(inputs, targets), recipe)])
    return lambda: float(program.step([torch.arange(BATCH)]))


def reference_step(layer: str) -> Callable[[], float]:
    """One step of the reference code: its model, loss and optimiser; returns the loss."""
    inputs, targets = (torch.from_numpy(array) for array in sample(TASK, "train", BATCH, seed=0))
    torch.manual_seed(0)
    model = _madlab.language_model(stack(layer), dim=DIM, max_length=TASK.length, vocab_size=TASK.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    criterion = torch.nn.CrossEntropyLoss(ignore_index=-100)

    def step() -> float:
        logits = model(inputs)
        loss = criterion(logits.view(-1, logits.size(-1)), targets.view(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def seconds(step: Callable[[], float]) -> tuple[float, float]:
    """Seconds that one step takes: on the clock, and of all cores together."""
    clock, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - clock, time.process_time() - cpu


def compare(mixer: str, layer: str, rounds: int) -> dict[str, str | float]:
    """Milliseconds a step of both, measured in turns, and how many times faster this project is."""
    ours, reference = our_step(mixer), reference_step(layer)
    flops = 3 * BATCH * architecture(" ".join(stack(mixer))).flops(length=TASK.input_length, vocab_size=TASK.vocab_size, dim=DIM)
    peak = ceilings("cpu").gemm
    for _ in range(2):  # the first steps allocate, and choose kernels
        ours(), reference()
    pairs = [(*seconds(ours), *seconds(reference)) for _ in range(rounds)]
    low, _, high = quantiles((theirs / mine for mine, _, theirs, _ in pairs), n=4)
    mine, my_cpu, theirs, their_cpu = (median(column) for column in zip(*pairs, strict=True))
    return {
        "mixer": mixer,
        "ours, ms": round(1e3 * mine),
        "reference, ms": round(1e3 * theirs),
        "times faster": round(theirs / mine, 2),
        "quartiles": f"{low:.2f} to {high:.2f}",
        "ours, % of GEMM": round(100 * flops / mine / peak, 1),
        "reference, % of GEMM": round(100 * flops / theirs / peak, 1),
        "ours, CPU ms": round(1e3 * my_cpu),
        "reference, CPU ms": round(1e3 * their_cpu),
        "times less CPU": round(their_cpu / my_cpu, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--madlab", type=Path, required=True, metavar="PATH", help="a checkout of the reference code")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--grid", action="store_true", help="six trainings on two workers, beside the reference code's loop")
    kinds.add_argument("--answers", action="store_true", help="what computing answered positions only saves; no reference")
    parser.add_argument(
        "--mixers",
        nargs="+",
        choices=PAIRS,
        metavar="MIXER",
        help="only these; default: all that the comparison has",
    )
    parser.add_argument("--rounds", type=int, help="repetitions of each, in turns (default: 15, with --grid 3)")
    parser.add_argument("--steps", type=int, default=8, help="of each training, with --grid (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both, with --grid workers of ours (default: 2)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    _madlab.load(args.madlab)
    shapes = f"width {DIM}, length {TASK.input_length}, vocabulary {TASK.vocab_size}, batch {BATCH}, float32"
    settings: dict[str, object] = {"architecture": "X swiglu X swiglu, X the mixer of the row", "shapes": shapes}
    rows: list[Mapping[str, str | float]] = []
    if args.grid:
        name, title = "training-speed-grid", "Six-point grid beside the reference code's loop"
        rounds = args.rounds or 3
        settings |= {"grid": "3 learning rates x 2 weight decays", "steps": args.steps, "rounds": rounds}
        settings |= {"ours": f"{args.threads} workers of one thread; wall time, data included"}
        settings |= {"reference": f"one training after the other, {args.threads} threads; Lightning and logging left out"}
        mixers = args.mixers or list(_grid.PAIRS)
        unknown = [mixer for mixer in mixers if mixer not in _grid.PAIRS]
        if unknown:
            parser.error(f"--grid --mixers {unknown[0]}: choose from {', '.join(_grid.PAIRS)}")
        rows += _grid.speed(mixers, args.steps, rounds, args.threads)
    elif args.answers:
        name, title = "training-speed-answers", "Answered positions only, memorization at vocabulary 8192"
        settings |= {"shapes": "width 128, length 32, vocabulary 8192, batch 128, float32", "threads": args.threads}
        rows += _grid.answers(args.rounds or 15)
    else:
        name, title = f"training-speed-{args.threads}-threads", "Training step beside the reference code of MAD"
        rounds = args.rounds or 15
        settings |= {"threads": args.threads, "rounds": rounds, "quartiles": "of the ratio of neighbouring steps"}
        for mixer in args.mixers or PAIRS:
            print(f"{mixer} ...", file=sys.stderr, flush=True)
            rows.append(compare(mixer, PAIRS[mixer], rounds))
    print(_results.table(rows))
    command = shlex.join(["python", "benchmarks/training_speed.py", *sys.argv[1:]]).replace(str(args.madlab), "mad-lab")
    written = _results.write(name, title, command, settings, rows, args.json)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
