"""The channel mixers from their definitions, one position at a time."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def mlp(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = dict(module.named_parameters())
    outputs = []
    for x_bd in x_bld.unbind(1):
        h = x_bd @ p["up.weight"].T
        h = h / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        outputs.append(h @ p["down.weight"].T)
    return torch.stack(outputs, 1)


def swiglu(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = dict(module.named_parameters())
    outputs = []
    for x_bd in x_bld.unbind(1):
        gate = x_bd @ p["gate.weight"].T
        h = gate / (1 + torch.exp(-gate)) * (x_bd @ p["up.weight"].T)
        outputs.append(h @ p["down.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"mlp": mlp, "swiglu": swiglu}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("mlp", {"expand": 1.5}), ("swiglu", {"inner": 40})]
