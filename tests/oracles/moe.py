"""Gated units behind a router, unit by unit."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.routing import routed


def moe(module: nn.Module, x_bld: Tensor) -> Tensor:
    num, dim = len(module.router.linear.weight), x_bld.shape[-1]
    weights, zero = routed(module.router, x_bld, module.router.active, module.reference)
    gate = x_bld @ module.gate.weight.T
    gelu = gate / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    hidden = (x_bld @ module.up.weight.T) * gelu
    inner = hidden.shape[-1] // num
    total = torch.zeros_like(x_bld) + zero
    for e in range(num):
        if module.reference:  # output d of unit e is row d num + e of the last map
            y = hidden @ module.down.weight[torch.arange(dim) * num + e].T
        else:
            units = slice(e * inner, (e + 1) * inner)
            y = hidden[..., units] @ module.down.weight[:, units].T
        total = total + weights[..., e : e + 1] * y
    return total


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"moe": moe}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("moe", {"num": 3, "inner": 5}),
    ("moe", {"inner": 16, "reference": True}),
]
