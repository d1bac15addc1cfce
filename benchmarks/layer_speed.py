"""Forward and backward time of the sequence mixers, against their step form token by token and against hardware limits.

A measurement is one forward pass and the gradients of the input and of every parameter, for 32 sequences of width 128. The
loop is the step form under autograd, which computes the same. Every step takes equally long, so on long sequences the loop
runs only as many tokens as fit into memory, and its time is multiplied. Layer, loop and mh-attention run in turns in one
process, and so does the layer with flash-linear-attention's kernels under ``--kernels fla``. Times are medians; on a CPU they
are processor time on one thread, with the allocator set as in the workers of a training. ``--against`` has the same layer of
another source tree make its passes in turns instead, in a second process.

The limit is the higher of two floors. Arithmetic: three times the FLOPs of the forward pass at the speed of a product of square
matrices (float32, on a GPU bfloat16). Memory: input, output, parameters and their gradients, each moved once at the speed of a
copy, 4 bytes a scalar. What a layer moves inside is not counted.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import _layer_pass
import _results
from _layer_pass import BATCH, DIM, clock_of, environment, inputs, seconds, start_as_worker
from archlab import architecture
from archlab.errors import ArchlabError
from archlab.jobs import worker
from archlab.layers import LayerConfig, layer, registry
from archlab.layers.ops.kernels import fused, kernels, require
from archlab.machine import Ceilings, ceilings
from archlab.testing.comparison import step_through

LOOP_TOKENS = 128
LOOP_STATES = 1 << 28
"""Scalars of the states that the loop may keep, all its tokens together; with what else autograd keeps, some 4 GB."""
REFERENCE = layer("mh-attention")
WARM_UP = 3
"""Passes until the allocator holds all memory that a pass needs."""
PROFILED = 3
"""Passes of which a profile is the sum."""
KINDS = {
    "products": "mm|addmm_?|mv|dot",
    "batched": "bmm|baddbmm_?",
    "attention": "_scaled_dot_product.*",
    "transforms": "_fft_.*",
    "copies": "copy_|_to_copy|clone|cat|fill_|zero_|index.*|gather|scatter.*",
    "reductions": "sum|cumsum|mean|a?max|linalg_vector_norm|logsumexp|native_group_norm.*",
    "Python": "(new_)?empty.*|resize_|as_strided|.*view|.*alias|detach|t|transpose|permute|movedim|slice|select|narrow|unfold"
    "|diagonal|expand|(un)?squeeze|flatten|unbind|split.*|chunk|reshape|contiguous|to|result_type|item|_local_scalar_dense|is_nonzero|linear|matmul",
}
"""Operators of a kind, as PyTorch's profiler names them. What computes nothing counts as Python, all others as elementwise."""


def floors(config: LayerConfig, length: int, found: Ceilings) -> tuple[float, float]:
    """Seconds that arithmetic and memory take at least."""
    moved = 4 * (4 * BATCH * length * DIM + 2 * config.num_params(DIM, length))
    return 3 * BATCH * config.flops(DIM, length) / found.gemm, moved / found.copy


def loop_tokens(config: LayerConfig, length: int) -> int:
    """Tokens that the loop runs."""
    return max(1, min(length, LOOP_TOKENS, LOOP_STATES // (BATCH * config.state_size(DIM, length))))


class ByKernels:
    """A layer's forward pass by the kernels of flash-linear-attention, and which of them it took."""

    def __init__(self, device: str, bf16: bool) -> None:
        self.device, self.bf16, self.taken = device, bf16, ""

    def __call__(self, module: nn.Module, x_bld: Tensor) -> Tensor:
        with kernels("fla", self.device, half=self.bf16):
            y_bld = module(x_bld)
            self.taken = str(fused())
        return y_bld


@contextmanager
def passes_of(tree: Path, device: str, bf16: bool) -> Iterator[Callable[[LayerConfig, int], float]]:
    """A function that has another source tree's layer make one pass, in a process of its own, and gives its seconds."""
    command = [sys.executable, _layer_pass.__file__, device, "bf16" if bf16 else ""]
    outside = {name: value for name, value in os.environ.items() if name not in worker.environment("benchmark", None)}
    variables = outside | {"PYTHONPATH": str(tree.resolve() / "src")}  # its workers' variables are its own
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:

        def run(config: LayerConfig, length: int) -> float:
            assert process.stdin
            assert process.stdout
            print(config, length, sep="\t", file=process.stdin, flush=True)
            return float(process.stdout.readline())

        yield run


def measure(
    config: LayerConfig, length: int, rounds: int, device: str, bf16: bool, found: Ceilings, by_kernels: ByKernels | None
) -> Mapping[str, str | float]:
    torch.manual_seed(0)
    module, reference = (one.build(DIM, length).to(device) for one in (config, REFERENCE))
    x_bld = inputs(length, device)
    tokens = loop_tokens(config, length)
    start_bld = x_bld.detach()[:, :tokens].clone().requires_grad_()
    runs: tuple[tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor], Tensor, int], ...] = (
        (module, nn.Module.__call__, x_bld, rounds),
        (reference, nn.Module.__call__, x_bld, rounds),
        (module, step_through, start_bld, min(rounds, 3)),
    )
    if by_kernels:
        runs = (*runs, (module, by_kernels, x_bld, rounds))
    times: list[list[float]] = [[] for _ in runs]
    with environment(device, bf16):
        for turn in range(rounds + 1):
            for (what, run, x, turns), taken in zip(runs, times, strict=True):
                if turn <= turns:
                    taken.append(seconds(what, run, x, device))
    ours, attention, loop, *fla = (median(taken[1:]) for taken in times)  # the first is not like the others
    loop *= length / tokens
    columns: dict[str, str | float] = {
        "layer": str(config),
        "length": str(length),
        "ms": round(1e3 * ours, 2),
        "loop, ms": round(1e3 * loop, 1),
        "tokens looped": tokens,
        "times faster": round(loop / ours, 2),
        **fractions(config, length, found, ours),
        "times mh-attention": round(ours / attention, 2),
    }
    if by_kernels:
        columns |= {
            "fla, ms": round(1e3 * fla[0], 2),
            "times faster by fla": round(ours / fla[0], 2),
            "kernels": by_kernels.taken,
        }
    return columns


def fractions(config: LayerConfig, length: int, found: Ceilings, taken: float) -> dict[str, float]:
    gemm, memory = floors(config, length, found)
    return {
        "GEMM floor, ms": round(1e3 * gemm, 2),
        "memory floor, ms": round(1e3 * memory, 2),
        "fraction of floor": round(max(gemm, memory) / taken, 3),
    }


def measure_against(
    other: Callable[[LayerConfig, int], float],
    config: LayerConfig,
    length: int,
    rounds: int,
    device: str,
    bf16: bool,
    found: Ceilings,
) -> Mapping[str, str | float]:
    """The layer of this source tree and that of another, in turns."""
    torch.manual_seed(0)
    module, x_bld = config.build(DIM, length).to(device), inputs(length, device)

    def before() -> float:
        return other(config, length)

    def now() -> float:
        with environment(device, bf16):
            return seconds(module, nn.Module.__call__, x_bld, device)

    for _ in range(WARM_UP):
        now(), before()
    turns = [(before(), now()) if turn % 2 else (now(), before())[::-1] for turn in range(rounds)]
    old, new = (median(taken) for taken in zip(*turns, strict=True))
    return {
        "layer": str(config),
        "length": str(length),
        "before, ms": round(1e3 * old, 2),
        "ms": round(1e3 * new, 2),
        "time over before": round(median(after / before for before, after in turns), 3),
        **fractions(config, length, found, new),
        "fraction before": round(max(floors(config, length, found)) / old, 3),
    }


def measure_profile(config: LayerConfig, length: int, bf16: bool) -> Mapping[str, str | float]:
    """Percent of a pass by kinds of operators; what the profiler itself takes counts as Python."""
    torch.manual_seed(0)
    module, x_bld = config.build(DIM, length), inputs(length, "cpu")
    with environment("cpu", bf16):
        for _ in range(WARM_UP):
            seconds(module, nn.Module.__call__, x_bld, "cpu")
        with profile(activities=[ProfilerActivity.CPU]) as found:
            started = time.perf_counter()  # the profiler counts so too
            for _ in range(PROFILED):
                seconds(module, nn.Module.__call__, x_bld, "cpu")
            total = time.perf_counter() - started
    taken: Counter[str] = Counter()
    for event in found.key_averages():
        name = event.key.removeprefix("aten::")
        if name != event.key:
            kind = next((kind for kind, names in KINDS.items() if re.fullmatch(names, name)), "elementwise")
            taken[kind] += event.self_cpu_time_total
    percents = {kind: round(1e-4 * taken[kind] / total, 1) for kind in ("elementwise", *KINDS) if kind != "Python"}
    return {
        "layer": str(config),
        "length": str(length),
        "ms": round(1e3 * total / PROFILED, 2),
        **percents,
        "Python": round(max(0.0, 100 - sum(percents.values())), 1),
    }


def parse_layers(texts: list[str] | None) -> list[LayerConfig]:
    """What was asked for, or every sequence mixer with its default knobs.

    Raises:
        ArchlabError: a spec is wrong or names a channel mixer, which has no step form.
    """
    if texts is None:
        return [config for _, kind in sorted(registry().items()) if (config := kind()).kind == "sequence"]
    configs = [config for text in texts for config in architecture(f"1*{text}").layers]
    for config in configs:
        if config.kind == "channel":
            raise ArchlabError(f"--layers {config}: is a channel mixer; name sequence mixers")
        config.validate(DIM)
    return configs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="with knobs or without; default: every sequence mixer")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 1024], help="default: 128 1024")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions, of the loop at most 3 (default: 7)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--kernels", choices=("torch", "fla"), default="torch", help="fla: its kernels too, on a GPU")
    parser.add_argument("--against", type=Path, metavar="TREE", help="in turns with the layers of another source tree, no loop")
    parser.add_argument("--profile", action="store_true", help="percent of the time by kinds of operators, on a CPU; no file")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    try:
        configs = parse_layers(args.layers)
        require(args.kernels, args.device)
    except ArchlabError as error:
        parser.error(str(error))
    if min(args.rounds, *args.lengths) < 1:
        parser.error("--rounds and --lengths must be at least 1")
    if args.against and not (args.against / "src" / "archlab").is_dir():
        parser.error(f"--against {args.against}: holds no src/archlab")
    start_as_worker()
    found = ceilings(args.device, clock_of(args.device))
    rows = []
    with passes_of(args.against, args.device, args.bf16) if args.against else nullcontext() as before:
        for length in args.lengths:
            for config in configs:
                print(f"{config} {length} ...", file=sys.stderr, flush=True)
                if args.profile:
                    rows.append(measure_profile(config, length, args.bf16))
                elif before:
                    rows.append(measure_against(before, config, length, args.rounds, args.device, args.bf16, found))
                else:
                    by_kernels = ByKernels(args.device, args.bf16) if args.kernels == "fla" else None
                    rows.append(measure(config, length, args.rounds, args.device, args.bf16, found, by_kernels))
    print(_results.table(rows))
    if args.profile:
        return
    settings = {
        "batch": BATCH,
        "width": DIM,
        "dtype": "bfloat16 autocast" if args.bf16 else "float32",
        "time": "wall time, synchronised" if args.device == "cuda" else "CPU time, one thread, in the environment of a worker",
        "GEMM peak, GFLOP/s": round(found.gemm / 1e9, 1),
        "copy bandwidth, GB/s": round(found.copy / 1e9, 2),
        "GEMM floor": "3 x forward FLOPs x batch over the GEMM peak",
        "memory floor": "input, output, parameters and their gradients, moved once, 4 bytes a scalar, over the copy bandwidth",
        "fraction of floor": "the higher of the two over the time",
    }
    if args.against:
        settings["time over before"] = "median of the ratios of neighbouring passes, this source tree's over the other's"
    else:
        settings["tokens looped"] = "the loop's time is that of so many tokens, times length over tokens"
    command = shlex.join(["python", "benchmarks/layer_speed.py", *sys.argv[1:]])
    written = _results.write(f"layer-speed-{args.device}", "Speed of the sequence mixers", command, settings, rows, args.json)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
