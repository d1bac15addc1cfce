"""HGRN2 as a float64 recurrence over single tokens (arXiv 2404.07904)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def hgrn2(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    width: int = module.head_dim  # type: ignore[assignment]
    bound: float = module.lower_bound  # type: ignore[assignment]
    matrix: Tensor | float = 0.0
    outputs = []
    for x_bd in x_bld.unbind(1):
        q, f, i = ((x_bd @ p[f"{name}_proj.weight"].T).view(len(x_bd), -1, width) for name in "qfi")
        f = bound + (1 - bound) * sigmoid(f)
        matrix = f[..., None] * matrix + torch.einsum("bhk,bhv->bhkv", 1 - f, i)
        o = torch.einsum("bhk,bhkv->bhv", q * sigmoid(q), matrix).flatten(1) / width**0.5
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        outputs.append(o @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"hgrn2": hgrn2}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("hgrn2", {"expand_ratio": 64, "lower_bound": 0.75})]
