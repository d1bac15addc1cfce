"""What a machine reaches at most: products of matrices, and copying."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Device = Literal["cpu", "cuda"]

_GEMM = 1024
_COPIED_BYTES = 64 << 20


@dataclass(frozen=True)
class Ceilings:
    """What one worker reaches at most while the others are as busy."""

    gemm: float
    """FLOP/s of a float32 product of square matrices, in bfloat16 on a GPU."""
    copy: float
    """Bytes read and written per second by copying what no cache holds."""


def ceilings(device: str, clock: Callable[[], float] = time.perf_counter) -> Ceilings:
    """Measured on this process's threads, by ``clock`` in seconds."""
    import torch

    size = _GEMM if device == "cpu" else 8 * _GEMM
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)

    def best(run: Any) -> float:
        times = []
        for _ in range(6):
            started = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(clock() - started)
        return min(times[1:])

    return Ceilings(2 * size**3 / best(lambda: torch.mm(a, b)), 2 * _COPIED_BYTES / best(lambda: target.copy_(source)))


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute as a worker does."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
