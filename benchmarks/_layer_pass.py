"""One forward and backward pass of a layer; as a script, a pass for every line that comes in, by the source tree on the path."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from archlab import architecture
from archlab.jobs import worker
from archlab.training.context import flushed_denormals

BATCH, DIM = 32, 128


def start_as_worker() -> None:
    """Start this script again with the variables of a training's worker, unless they are set: the allocator reads them once."""
    wanted = worker.environment("benchmark", None)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | wanted)
    torch.set_num_threads(1)


@contextmanager
def environment(device: str, bf16: bool) -> Iterator[None]:
    with flushed_denormals(), torch.autocast(device, torch.bfloat16, enabled=bf16):
        yield


def clock_of(device: str) -> Callable[[], float]:
    return time.perf_counter if device == "cuda" else time.process_time


def inputs(length: int, device: str) -> Tensor:
    return torch.randn(BATCH, length, DIM, device=device, requires_grad=True)


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


def main(device: str, bf16: str) -> None:
    """Make a pass of the layer and at the length that each line names, and print its seconds."""
    start_as_worker()
    named = ""
    with environment(device, bool(bf16)):
        for line in sys.stdin:
            if line != named:
                spec, length = line.split("\t")
                torch.manual_seed(0)
                (config,) = architecture(f"1*{spec}").layers
                module, x_bld = config.build(DIM, int(length)).to(device), inputs(int(length), device)
                named = line
            print(seconds(module, nn.Module.__call__, x_bld, device), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
