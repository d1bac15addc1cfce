"""Token shift: the input of a layer from the token before (RWKV, arXiv 2305.13048, section 3.1)."""

import torch
from torch import Tensor


def before(x: Tensor) -> Tensor:
    """At each position of axis 1 the values of the position before, zeros at the first: the shape of ``x``."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
