"""Mamba-2 as a float64 recurrence over single tokens (arXiv 2405.21060)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def mamba2(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    inner, heads = len(p["norm.weight"]), len(p["A_log"])
    channels, _, taps = p["conv.weight"].shape
    d_state = (channels - inner) // 2
    matrix = x_bld.new_zeros(len(x_bld), heads, inner // heads, d_state)
    window = [x_bld.new_zeros(len(x_bld), channels)] * taps
    outputs = []
    for u_bd in x_bld.unbind(1):
        projected = u_bd @ p["in_proj.weight"].T
        z, dt = projected[:, :inner], torch.log1p(torch.exp(projected[:, inner + channels :] + p["dt_bias"]))
        window = [*window[1:], projected[:, inner : inner + channels]]
        convolved = silu(sum((w * p["conv.weight"][:, 0, j] for j, w in enumerate(window)), p["conv.bias"]))
        x = convolved[:, :inner].view(len(u_bd), heads, -1)
        b, c = convolved[:, inner : inner + d_state], convolved[:, inner + d_state :]
        decay = torch.exp(-dt * torch.exp(p["A_log"]))
        matrix = decay[..., None, None] * matrix + torch.einsum("bh,bhp,bn->bhpn", dt, x, b)
        y = torch.einsum("bhpn,bn->bhp", matrix, c) + p["D"][:, None] * x
        y = y.flatten(1) * silu(z)
        y = y / torch.sqrt((y * y).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        outputs.append(y @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"mamba-2": mamba2}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("mamba-2", {"d_state": 3, "d_conv": 1, "expand": 1, "headdim": 64})]
