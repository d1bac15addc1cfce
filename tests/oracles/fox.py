"""Forgetting attention one query at a time in float64 (arXiv 2503.02130, equations 6 to 8, and the Pro block of section 3.3)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def fox(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, pro, batch = int(module.heads), "norm" in p, len(x_bld)  # type: ignore[arg-type]
    keys: list[Tensor] = []
    values: list[Tensor] = []
    retained: list[Tensor] = []  # the product of the forget gates since each key
    last = torch.zeros(2, batch, heads, x_bld.shape[-1] // heads, dtype=torch.float64)
    outputs = []
    for x in x_bld.unbind(1):
        q, k, v = (t.reshape(batch, heads, -1) for t in (x @ p["qkv_proj.weight"].T).chunk(3, -1))
        forget = sigmoid(x @ p["forget_proj.weight"].T + p["forget_proj.bias"])
        own = torch.stack([k, v])
        if pro:
            of_k, of_v = sigmoid(x @ p["shift_proj.weight"].T).chunk(2, -1)
            k, v = of_k[..., None] * last[0] + (1 - of_k[..., None]) * k, of_v[..., None] * last[1] + (1 - of_v[..., None]) * v
            q, k = normed(q, p["q_norm"], 1e-5), normed(k, p["k_norm"], 1e-5)
        last = own
        retained = [r * forget for r in retained] + [torch.ones_like(forget)]
        keys, values = [*keys, k], [*values, v]
        scores = torch.stack([(q * key).sum(-1) for key in keys]) / math.sqrt(q.shape[-1])
        weights = torch.stack(retained) * torch.exp(scores - scores.max(0).values)
        o = (weights[..., None] * torch.stack(values)).sum(0) / weights.sum(0)[..., None]
        if pro:
            o = normed(o, p["norm"], 1e-6) * sigmoid(x @ p["gate_proj.weight"].T).view_as(o)
        outputs.append(o.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"fox": fox}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("fox", {"heads": 2}), ("fox", {"heads": 4, "pro": True})]
NO_DECAY: dict[str, tuple[str, ...]] = {"fox": ("q_norm", "k_norm", "norm")}
