"""Attention one query at a time in float64, from the definition."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def attention(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = dict(module.named_parameters())
    dim, heads, window = x_bld.shape[-1], module.heads, module.window
    width = dim // heads
    keys: list[Tensor] = []
    values: list[Tensor] = []
    outputs = []
    for position, x_bd in enumerate(x_bld.unbind(1)):
        q, k, v = (x_bd @ p["qkv.weight"].T + p["qkv.bias"]).reshape(-1, 3, heads, width).unbind(1)
        keys.append(_turned(k, position))
        values.append(v)
        scores_btw = torch.stack([(_turned(q, position) * key).sum(-1) / math.sqrt(width) for key in keys[-window:]], 1)
        weights = scores_btw.exp() / scores_btw.exp().sum(1, keepdim=True)
        mixed = (weights[..., None] * torch.stack(values[-window:], 1)).sum(1)
        outputs.append(mixed.reshape(-1, dim) @ p["out.weight"].T + p["out.bias"])
    return torch.stack(outputs, 1)


def _turned(x_bhd: Tensor, position: int) -> Tensor:
    """Channels j and j + d/2 as the real and imaginary part of a number times e^(i position 10000^(-2j/d))."""
    half = x_bhd.shape[-1] // 2
    angles = [position * 10_000 ** (-j / half) for j in range(half)]
    turn = torch.tensor([complex(math.cos(a), math.sin(a)) for a in angles], dtype=torch.complex128)
    turned = torch.complex(x_bhd[..., :half], x_bhd[..., half:]) * turn
    return torch.cat((turned.real, turned.imag), -1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "attention": attention,
    "mh-attention": attention,
    "sliding-attention": attention,
    "mh-sliding-attention": attention,
}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("attention", {"heads": 4}),
    ("sliding-attention", {"window": 1}),
    ("sliding-attention", {"window": 100}),
    ("sliding-attention", {"window": 500}),
]
