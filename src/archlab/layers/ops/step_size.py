"""Where the step sizes of discretised decays start."""

import math

import torch
from torch import Tensor

DT_MIN, DT_MAX = 1e-3, 1e-1


def step_size_bias(channels: int) -> Tensor:
    """Biases (C) whose softplus is log-uniform in [0.001, 0.1] (arXiv 2312.00752, section 3.6), from torch's generator."""
    dt = torch.empty(channels).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
    return inverse_softplus(dt)


def inverse_softplus(x: Tensor) -> Tensor:
    """Inverse of softplus."""
    return x + torch.log(-torch.expm1(-x))
