"""Titans' linear memory as a float64 recurrence over single tokens (arXiv 2501.00663, equations 9 to 14)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def titans(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads: int = module.heads  # type: ignore[assignment]
    max_beta: float = module.max_beta  # type: ignore[assignment]
    dim, taps, batch = x_bld.shape[-1], p["conv.weight"].shape[-1], len(x_bld)
    memory = x_bld.new_zeros(batch, heads, dim // heads, p["out_proj.weight"].shape[1] // heads)
    surprise = torch.zeros_like(memory)
    window = [x_bld.new_zeros(batch, len(p["conv.weight"]))] * taps
    outputs = []
    for x_bd in x_bld.unbind(1):
        window = [*window[1:], x_bd @ p["qkv_proj.weight"].T]
        convolved = sum(w * p["conv.weight"][:, 0, j] for j, w in enumerate(window))
        convolved = convolved * sigmoid(convolved)
        q, k, v = (t.reshape(batch, heads, -1) for t in torch.tensor_split(convolved, [dim, 2 * dim], dim=-1))
        q, k = (t / torch.sqrt((t * t).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        rate = max_beta * sigmoid(x_bd @ p["beta_proj.weight"].T)[..., None, None]
        gates = sigmoid(x_bd @ p["decay_proj.weight"].T + p["decay_proj.bias"]).reshape(batch, heads, 2)
        forgotten, momentum = gates[..., 0, None, None], gates[..., 1, None, None]
        error = torch.einsum("bhk,bhkv->bhv", k, memory) - v
        gradient = torch.einsum("bhk,bhv->bhkv", k, error)
        surprise = momentum * surprise - rate * gradient
        memory = (1 - forgotten) * memory + surprise
        o = torch.einsum("bhk,bhkv->bhv", q, memory) / (dim // heads) ** 0.5
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        gate = (x_bd @ p["gate_proj.weight"].T).view_as(o)
        outputs.append((o * gate * sigmoid(gate)).flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"titans": titans}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("titans", {"heads": 2, "allow_neg_eigval": True}),
    ("titans", {"heads": 16, "expand_v": 2, "d_conv": 2}),
]
