"""Kimi Delta Attention as a float64 recurrence over single tokens (arXiv 2510.26692, equation 1)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def kda(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads: int = module.heads  # type: ignore[assignment]
    max_beta: float = module.max_beta  # type: ignore[assignment]
    dim, taps = x_bld.shape[-1], p["conv.weight"].shape[-1]
    matrix = x_bld.new_zeros(len(x_bld), heads, dim // heads, p["out_proj.weight"].shape[1] // heads)
    window = [x_bld.new_zeros(len(x_bld), len(p["conv.weight"]))] * taps
    outputs = []
    for x_bd in x_bld.unbind(1):
        window = [*window[1:], x_bd @ p["qkv_proj.weight"].T]
        convolved = sum(w * p["conv.weight"][:, 0, j] for j, w in enumerate(window))
        convolved = convolved * sigmoid(convolved)
        q, k, v = (t.reshape(len(x_bd), heads, -1) for t in torch.tensor_split(convolved, [dim, 2 * dim], dim=-1))
        q, k = (t / torch.sqrt((t * t).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        beta = max_beta * sigmoid(x_bd @ p["beta_proj.weight"].T)
        dt = torch.log1p(torch.exp(x_bd @ p["dt_proj.0.weight"].T @ p["dt_proj.1.weight"].T + p["dt_bias"]))
        alpha = torch.exp(-torch.exp(p["A_log"])[:, None] * dt.view_as(k))
        decayed = alpha[..., None] * matrix
        erased = torch.einsum("bh,bhk,bhj,bhjv->bhkv", beta, k, k, decayed)
        matrix = decayed - erased + torch.einsum("bh,bhk,bhv->bhkv", beta, k, v)
        o = torch.einsum("bhk,bhkv->bhv", q, matrix) / (dim // heads) ** 0.5
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        gate = x_bd @ p["gate_proj.0.weight"].T @ p["gate_proj.1.weight"].T + p["gate_proj.1.bias"]
        o = o * sigmoid(gate).view_as(o)
        outputs.append(o.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"kda": kda}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("kda", {"heads": 4, "expand_v": 2, "d_conv": 1, "allow_neg_eigval": True})]
