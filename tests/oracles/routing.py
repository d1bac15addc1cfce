"""Routing from its definition: one token at a time, with Python's sort."""

import math

import torch
from torch import Tensor, nn


def routed(router: nn.Module, x_bld: Tensor, active: int, reference: bool = False) -> tuple[Tensor, Tensor]:
    """Weights (batch, length, experts), and zero, through which the balancing biases get their gradient."""
    logits = x_bld @ router.linear.weight.T
    if reference:
        logits = logits + router.linear.bias
    bias = torch.zeros(logits.shape[-1]) if reference else router.balance * 1
    scores = (logits + math.sqrt(x_bld.shape[-1]) * bias).tolist()
    weights = torch.zeros_like(logits)
    excess = torch.full((logits.shape[-1],), -active * x_bld.shape[0] * x_bld.shape[1] / logits.shape[-1], dtype=logits.dtype)
    for b in range(x_bld.shape[0]):
        for t in range(x_bld.shape[1]):
            own = logits[b, t]
            chosen = sorted(range(len(own)), key=scores[b][t].__getitem__, reverse=True)[:active]
            excess[chosen] += 1
            powers = torch.stack([torch.exp(own[e]) if e in chosen else torch.ones_like(own[e]) for e in range(len(own))])
            if not reference:
                powers = powers * torch.tensor([float(e in chosen) for e in range(len(own))])
            weights[b, t] = powers / powers.sum()
    if reference:
        return weights, torch.zeros(())
    bias.register_hook(lambda _: 1e-6 * excess)
    return weights, 0 * bias.sum()
