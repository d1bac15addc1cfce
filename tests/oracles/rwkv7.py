"""RWKV-7 as float64 recurrences over single tokens (arXiv 2503.14456, equations 2 to 22), value residual left out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def time_mixer(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, width = p["bonus"].shape
    matrix_bhvk = x_bld.new_zeros(len(x_bld), heads, width, width)
    last = torch.zeros_like(x_bld[:, 0])
    outputs = []
    for x_bd in x_bld.unbind(1):
        xr, xw, xk, xv, xa, xg = ((1 - mu) * x_bd + mu * last for mu in p["mix"])
        last = x_bd
        r, k, v = xr @ p["r_proj.weight"].T, xk @ p["k_proj.weight"].T, xv @ p["v_proj.weight"].T
        d = torch.tanh(xw @ p["decay_proj.0.weight"].T) @ p["decay_proj.2.weight"].T + p["decay_proj.2.bias"]
        w = torch.exp(-(torch.e**-0.5) * sigmoid(d))
        a = sigmoid(xa @ p["rate_proj.0.weight"].T @ p["rate_proj.2.weight"].T + p["rate_proj.2.bias"])
        g = sigmoid(xg @ p["gate_proj.0.weight"].T) @ p["gate_proj.2.weight"].T
        kappa = (k * p["kappa_scale"]).view(-1, heads, width)
        kappa = kappa / torch.sqrt((kappa * kappa).sum(-1, keepdim=True))
        k = k + k * (a - 1) * p["key_by_rate"]
        r, k, v, w, a = (t.view(-1, heads, width) for t in (r, k, v, w, a))
        transition = torch.diag_embed(w) - torch.einsum("bhi,bhj->bhij", kappa, a * kappa)
        matrix_bhvk = matrix_bhvk @ transition + torch.einsum("bhv,bhk->bhvk", v, k)
        o = torch.einsum("bhvk,bhk->bhv", matrix_bhvk, r)
        centred = o - o.mean(-1, keepdim=True)
        o = (centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 64e-5)).flatten(1)
        o = o * p["norm.weight"] + p["norm.bias"]
        o = o + ((r * p["bonus"] * k).sum(-1, keepdim=True) * v).flatten(1)
        outputs.append((o * g) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


def channel_mixer(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    last = torch.zeros_like(x_bld[:, 0])
    outputs = []
    for x_bd in x_bld.unbind(1):
        inner = ((1 - p["mix"]) * x_bd + p["mix"] * last) @ p["up.weight"].T
        outputs.append((inner * (inner > 0)) ** 2 @ p["down.weight"].T)
        last = x_bd
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"rwkv-7": time_mixer, "rwkv-7-channel-mixer": channel_mixer}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("rwkv-7-channel-mixer", {"expand": 1})]
NO_DECAY: dict[str, tuple[str, ...]] = {"rwkv-7": ("mix", "bonus", "decay_proj.*", "rate_proj.*", "gate_proj.*")}
