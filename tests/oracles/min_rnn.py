"""minGRU and minLSTM as float64 recurrences over single tokens (arXiv 2410.01201, sections 3.1 and 3.2)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def g(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x + 0.5, sigmoid(x))


def recurrence(module: nn.Module, x_bld: Tensor, update: Callable[..., Tensor]) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    width: int = module.inner  # type: ignore[assignment]
    h_bw = x_bld.new_zeros(len(x_bld), width)
    outputs = []
    for x_bd in x_bld.unbind(1):
        h_bw = update(h_bw, *(x_bd @ p["in_proj.weight"].T).split(width, -1))
        outputs.append(h_bw @ p["out_proj.weight"].T if "out_proj.weight" in p else h_bw)
    return torch.stack(outputs, 1)


def min_gru(module: nn.Module, x_bld: Tensor) -> Tensor:
    def update(h: Tensor, z: Tensor, candidate: Tensor) -> Tensor:
        return (1 - sigmoid(z)) * h + sigmoid(z) * g(candidate)

    return recurrence(module, x_bld, update)


def min_lstm(module: nn.Module, x_bld: Tensor) -> Tensor:
    def update(h: Tensor, f: Tensor, i: Tensor, candidate: Tensor) -> Tensor:
        f, i = sigmoid(f), sigmoid(i)
        return f / (f + i) * h + i / (f + i) * g(candidate)

    return recurrence(module, x_bld, update)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"min-gru": min_gru, "min-lstm": min_lstm}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("min-gru", {"expand": 2}), ("min-lstm", {"expand": 2})]
