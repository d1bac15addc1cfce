"""Forward and backward time of the sequence mixers, against their step form token by token and against hardware limits.

A measurement is one forward pass and the gradients of the input and of every parameter, for 32 sequences of width 128. The
loop is the step form under autograd, which computes the same. Every step takes equally long, so on long sequences the loop
runs only as many tokens as fit into memory, and its time is multiplied. Layer, loop and mh-attention run in turns in one
process, and so does the layer with flash-linear-attention's kernels under ``--kernels fla``. Times are medians; on a CPU they
are processor time on one thread.

The limit is the higher of two floors. Arithmetic: three times the FLOPs of the forward pass at the speed of a product of square
matrices (float32, on a GPU bfloat16). Memory: input, output, parameters and their gradients, each moved once at the speed of a
copy, 4 bytes a scalar. What a layer moves inside is not counted.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

import _results
from archlab import architecture
from archlab.errors import ArchlabError
from archlab.layers import LayerConfig, layer, registry
from archlab.layers.ops.kernels import fused, kernels, require
from archlab.machine import Ceilings, ceilings
from archlab.testing.comparison import step_through
from archlab.training.context import flushed_denormals

BATCH, DIM = 32, 128
LOOP_TOKENS = 128
LOOP_STATES = 1 << 28
"""Scalars of the states that the loop may keep, all its tokens together; with what else autograd keeps, some 4 GB."""
REFERENCE = layer("mh-attention")


@contextmanager
def environment(device: str, bf16: bool) -> Iterator[None]:
    with flushed_denormals(), torch.autocast(device, torch.bfloat16, enabled=bf16):
        yield


def clock_of(device: str) -> Callable[[], float]:
    return time.perf_counter if device == "cuda" else time.process_time


def seconds(module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x_bld: Tensor, device: str) -> float:
    """One forward and backward pass."""
    clock = clock_of(device)
    wanted = [x_bld, *module.parameters()]
    dy_bld = torch.ones_like(x_bld)
    _synchronize(device)
    started = clock()
    y_bld = run(module, x_bld)
    torch.autograd.grad(y_bld, wanted, dy_bld.to(y_bld.dtype), allow_unused=True)
    _synchronize(device)
    return clock() - started


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


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


def measure(
    config: LayerConfig, length: int, rounds: int, device: str, bf16: bool, found: Ceilings, by_kernels: ByKernels | None
) -> Mapping[str, str | float]:
    torch.manual_seed(0)
    module, reference = (one.build(DIM, length).to(device) for one in (config, REFERENCE))
    x_bld = torch.randn(BATCH, length, DIM, device=device, requires_grad=True)
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
    gemm, memory = floors(config, length, found)
    columns: dict[str, str | float] = {
        "layer": str(config),
        "length": str(length),
        "ms": round(1e3 * ours, 2),
        "loop, ms": round(1e3 * loop, 1),
        "tokens looped": tokens,
        "times faster": round(loop / ours, 2),
        "GEMM floor, ms": round(1e3 * gemm, 2),
        "memory floor, ms": round(1e3 * memory, 2),
        "fraction of floor": round(max(gemm, memory) / ours, 3),
        "times mh-attention": round(ours / attention, 2),
    }
    if by_kernels:
        columns |= {
            "fla, ms": round(1e3 * fla[0], 2),
            "times faster by fla": round(ours / fla[0], 2),
            "kernels": by_kernels.taken,
        }
    return columns


def parse_layers(texts: list[str] | None) -> list[LayerConfig]:
    """What was asked for, or every sequence mixer with its default knobs.

    Raises:
        ArchlabError: a spec is wrong or names a channel mixer, which has no step form.
    """
    if texts is None:
        return [config() for _, config in sorted(registry().items()) if config.kind == "sequence"]
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
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    try:
        configs = parse_layers(args.layers)
        require(args.kernels, args.device)
    except ArchlabError as error:
        parser.error(str(error))
    if min(args.rounds, *args.lengths) < 1:
        parser.error("--rounds and --lengths must be at least 1")
    torch.set_num_threads(1)
    found = ceilings(args.device, clock_of(args.device))
    rows = []
    for length in args.lengths:
        for config in configs:
            print(f"{config} {length} ...", file=sys.stderr, flush=True)
            by_kernels = ByKernels(args.device, args.bf16) if args.kernels == "fla" else None
            rows.append(measure(config, length, args.rounds, args.device, args.bf16, found, by_kernels))
    print(_results.table(rows))
    settings = {
        "batch": BATCH,
        "width": DIM,
        "dtype": "bfloat16 autocast" if args.bf16 else "float32",
        "time": "wall time, synchronised" if args.device == "cuda" else "CPU time, one thread",
        "GEMM peak, GFLOP/s": round(found.gemm / 1e9, 1),
        "copy bandwidth, GB/s": round(found.copy / 1e9, 2),
        "tokens looped": "the loop's time is that of so many tokens, times length over tokens",
        "GEMM floor": "3 x forward FLOPs x batch over the GEMM peak",
        "memory floor": "input, output, parameters and their gradients, moved once, 4 bytes a scalar, over the copy bandwidth",
        "fraction of floor": "the higher of the two over the time",
    }
    command = shlex.join(["python", "benchmarks/layer_speed.py", *sys.argv[1:]])
    written = _results.write(f"layer-speed-{args.device}", "Speed of the sequence mixers", command, settings, rows, args.json)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
