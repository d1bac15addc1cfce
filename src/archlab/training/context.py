"""The context of every training step, and the initialisation of a model from a seed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from archlab.layers.ops.kernels import kernels


@contextmanager
def computing(kernels_name: str, precision: str, device: str) -> Iterator[None]:
    """Flush denormals and compute recurrences by the recipe's kernels, as every training step does; refuses kernels that cannot
    run here."""
    with flushed_denormals(), kernels(kernels_name, device, half=precision == "bf16"):
        yield


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Round numbers too small for the usual format to 0 on the CPU: long decays underflow, and such numbers are ten times
    slower to compute with."""
    flushed_before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)


@contextmanager
def initialising(seed: int) -> Iterator[None]:
    """Draw initial values from a seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0] >> 1))
        yield
