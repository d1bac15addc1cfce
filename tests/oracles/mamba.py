"""Mamba as a float64 recurrence over single tokens, straight from arXiv 2312.00752, algorithm 2."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def mamba(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    inner, d_state = p["A_log"].shape
    rank = p["dt_proj.weight"].shape[1]
    taps = p["conv.weight"].shape[-1]
    silu = lambda t: t / (1 + torch.exp(-t))  # noqa: E731
    a_cn = -torch.exp(p["A_log"])
    outputs = []
    h_bcn = x_bld.new_zeros(len(x_bld), inner, d_state)
    window = [x_bld.new_zeros(len(x_bld), inner)] * taps
    for u_bd in x_bld.unbind(1):
        xz = u_bd @ p["in_proj.weight"].T
        x, z = xz[:, :inner], xz[:, inner:]
        window = [*window[1:], x]
        x = silu(sum((w * p["conv.weight"][:, 0, j] for j, w in enumerate(window)), p["conv.bias"]))
        selection = x @ p["x_proj.weight"].T
        dt = torch.log1p(torch.exp(selection[:, :rank] @ p["dt_proj.weight"].T + p["dt_bias"]))
        b, c = selection[:, rank : rank + d_state], selection[:, rank + d_state :]
        h_bcn = torch.exp(dt[:, :, None] * a_cn) * h_bcn + torch.einsum("bc,bn->bcn", dt * x, b)
        y = torch.einsum("bcn,bn->bc", h_bcn, c) + p["D"] * x
        outputs.append((y * silu(z)) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"mamba": mamba}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("mamba", {"d_state": 8, "expand": 1}),
    ("mamba", {"d_state": 1, "d_conv": 1, "dt_rank": 3}),
]
NO_DECAY: dict[str, tuple[str, ...]] = {"mamba": ("A_log",)}
