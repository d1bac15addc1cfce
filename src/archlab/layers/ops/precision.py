"""Computations that stay in at least float32 when the rest runs in bfloat16."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 if it is narrower than that, else ``x`` itself (float64 stays float64)."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def no_autocast(x: Tensor) -> torch.autocast:
    """A context in which operations on ``x``'s device compute in the dtype of their operands."""
    return torch.autocast(x.device.type, enabled=False)
