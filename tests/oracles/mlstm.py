"""mLSTM as a float64 recurrence over single tokens, without a running maximum (arXiv 2405.04517, equations 19 to 27)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def mlstm(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads = len(p["gate_bias"]) // 2
    matrix: Tensor | float = 0.0
    keys: Tensor | float = 0.0
    outputs = []
    for x_bd in x_bld.unbind(1):
        q, k, v = ((x_bd @ p[f"{name}_proj.weight"].T).view(len(x_bd), heads, -1) for name in "qkv")
        gates = 15 * torch.tanh((x_bd @ p["gate_proj.weight"].T + p["gate_bias"]) / 15)
        i, f = torch.exp(gates[:, :heads]), sigmoid(gates[:, heads:])
        matrix = f[..., None, None] * matrix + torch.einsum("bh,bhk,bhv->bhkv", i, k, v)
        keys = f[..., None] * keys + i[..., None] * k
        q = q / q.shape[-1] ** 0.5
        total = torch.einsum("bhk,bhk->bh", q, keys).abs().clamp(min=1)
        h = torch.einsum("bhk,bhkv->bhv", q, matrix) / total[..., None]
        h = h - h.mean(-1, keepdim=True)
        h = (h / torch.sqrt((h * h).mean(-1, keepdim=True) + 1e-6)).flatten(1) * p["norm_weight"]
        outputs.append((h * sigmoid(x_bd @ p["o_proj.weight"].T)) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"mlstm": mlstm}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("mlstm", {"heads": 1})]
