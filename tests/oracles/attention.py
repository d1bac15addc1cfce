"""Attention one query at a time in float64, from the definition."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def attention(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = dict(module.named_parameters())
    dim, heads, window = x_bld.shape[-1], module.heads, module.window or x_bld.shape[1]
    width = dim // heads
    projected = [(x_bd @ p["qkv.weight"].T + p["qkv.bias"]).reshape(len(x_bd), -1, width) for x_bd in x_bld.unbind(1)]
    kv_heads = (projected[0].shape[1] - heads) // 2
    shared = [heads + head * kv_heads // heads for head in range(heads)]
    keys_blhd = torch.stack([turned(qkv[:, shared], position) for position, qkv in enumerate(projected)], 1)
    values_blhd = torch.stack([qkv[:, [head + kv_heads for head in shared]] for qkv in projected], 1)
    outputs = []
    for position, qkv in enumerate(projected):
        visible = slice(max(0, position - window + 1), position + 1)
        query = turned(qkv[:, :heads], position)
        scores_bth = torch.einsum("bhd,bthd->bth", query, keys_blhd[:, visible]) / math.sqrt(width)
        weights = scores_bth.exp() / scores_bth.exp().sum(1, keepdim=True)
        mixed = torch.einsum("bth,bthd->bhd", weights, values_blhd[:, visible])
        outputs.append(mixed.reshape(-1, dim) @ p["out.weight"].T + p["out.bias"])
    return torch.stack(outputs, 1)


def turned(x_bhd: Tensor, position: int) -> Tensor:
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
    "gqa": attention,
}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("attention", {"heads": 4}),
    ("sliding-attention", {"window": 1}),
    ("sliding-attention", {"window": 100}),
    ("sliding-attention", {"window": 500}),
    ("gqa", {"heads": 4, "kv_heads": 1}),
    ("gqa", {"kv_heads": 8, "window": 20}),
]
