"""Mamba-3 as a float64 recurrence over single tokens, with complex states where they rotate (arXiv 2603.15569)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def softplus(x: Tensor) -> Tensor:
    return torch.where(x > 30, x, torch.log1p(torch.exp(x.clamp(max=30))))


def mamba3(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, d_state = p["k_bias"].shape
    inner, batch, pairs = p["out_proj.weight"].shape[1], len(x_bld), d_state // 4
    # States turn in their own frame here, and keys and queries stay as they are.
    turning = torch.zeros(batch, heads, pairs, inner // heads, dtype=torch.complex128)
    resting = torch.zeros(batch, heads, d_state - 2 * pairs, inner // heads, dtype=torch.float64)
    last_turning, last_resting = torch.zeros_like(turning), torch.zeros_like(resting)
    outputs = []
    for u in x_bld.unbind(1):
        sizes = [inner, inner, d_state, d_state, heads, heads, heads, pairs]
        z, x, k, q, dt, rate, r, turn = torch.split(u @ p["in_proj.weight"].T, sizes, -1)
        dt, r = softplus(dt + p["dt_bias"]), sigmoid(r)
        decay = torch.exp(-dt * softplus(rate).clamp(min=1e-4))
        k, q = (t / torch.sqrt((t * t).mean(-1, keepdim=True) + 1e-5) for t in (k, q))
        k = (k * p["k_norm.weight"])[:, None] + p["k_bias"]
        q = (q * p["q_norm.weight"])[:, None] + p["q_bias"]
        x, z = x.reshape(batch, heads, -1), z.reshape(batch, heads, -1)
        k_turning, q_turning = (torch.complex(t[..., : 2 * pairs : 2], t[..., 1 : 2 * pairs : 2]) for t in (k, q))
        new_turning, new_resting = k_turning[..., None] * x[..., None, :], k[..., 2 * pairs :, None] * x[..., None, :]
        spin = torch.exp(-1j * math.pi * dt[..., None] * torch.tanh(turn)[:, None])
        a, ours, theirs = (t[..., None, None] for t in (decay, dt * r, dt * (1 - r)))
        turning = spin[..., None] * a * (turning + theirs * last_turning) + ours * new_turning
        resting = a * (resting + theirs * last_resting) + ours * new_resting
        last_turning, last_resting = new_turning, new_resting
        y = (q_turning.conj()[..., None] * turning).real.sum(-2) + (q[..., 2 * pairs :, None] * resting).sum(-2)
        y = (y + p["D"][:, None] * x) * z * sigmoid(z)
        outputs.append(y.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"mamba-3": mamba3}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("mamba-3", {"d_state": 5, "expand": 1, "headdim": 64}),
    ("mamba-3", {"d_state": 16}),
]
NO_DECAY: dict[str, tuple[str, ...]] = {"mamba-3": ("k_bias", "q_bias")}
