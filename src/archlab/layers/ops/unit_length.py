"""Queries and keys of unit length."""

import torch
from torch import Tensor

EPS = 1e-6


def unit_length(x: Tensor) -> Tensor:
    """``x`` over its Euclidean norm along the last axis; smooth at zero, and vectors near zero come out shorter."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS)
