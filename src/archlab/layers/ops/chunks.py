"""Cutting sequences into chunks of equal length."""

import torch.nn.functional as F
from torch import Tensor


def num_chunks(length: int, chunk: int) -> int:
    """Chunks that cover ``length`` positions, the last one perhaps in part."""
    return -(-length // chunk)


def cut(x_nld: Tensor, chunk: int) -> Tensor:
    """(N, L, D) to (N * chunks, chunk, D), zeros after the last position."""
    length, dim = x_nld.shape[1:]
    missing = -length % chunk
    if missing:
        x_nld = F.pad(x_nld, (0, 0, 0, missing))
    return x_nld.reshape(-1, chunk, dim)
