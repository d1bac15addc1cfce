"""Griffin's recurrent block as a float64 recurrence over single tokens (arXiv 2402.19427, section 2.4)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rg_lru(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    taps = p["conv.weight"].shape[-1]
    w_a, w_x = (torch.block_diag(*blocks) for blocks in p["gates_weight"])
    b_a, b_x = p["gates_bias"]
    a = sigmoid(p["Lambda"])
    window = [x_bld.new_zeros(len(x_bld), len(a))] * taps
    h_bw = torch.zeros_like(window[0])
    outputs = []
    for x_bd in x_bld.unbind(1):
        window = [*window[1:], x_bd @ p["in_proj.weight"].T + p["in_proj.bias"]]
        u = sum((w * p["conv.weight"][:, 0, j] for j, w in enumerate(window)), p["conv.bias"])
        a_t = a ** (8 * sigmoid(u @ w_a + b_a))
        h_bw = a_t * h_bw + torch.sqrt(1 - a_t**2) * sigmoid(u @ w_x + b_x) * u
        y = gelu(x_bd @ p["gate_proj.weight"].T + p["gate_proj.bias"]) * h_bw
        outputs.append(y @ p["out_proj.weight"].T + p["out_proj.bias"])
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"rg-lru": rg_lru}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("rg-lru", {"lru_width": 96, "blocks": 1, "d_conv": 2})]
NO_DECAY: dict[str, tuple[str, ...]] = {"rg-lru": ("gates_bias",)}
