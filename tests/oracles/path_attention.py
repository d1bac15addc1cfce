"""PaTH attention one query at a time in float64: every key carries the product of the matrices since (arXiv 2505.16381)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def path_attention(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, batch, dim = int(module.heads), len(x_bld), x_bld.shape[-1]  # type: ignore[arg-type]
    window = [torch.zeros(batch, dim, dtype=torch.float64)] * 3
    matrices: list[Tensor] = []  # for each key H_t ... H_{s+1}, (B, H, K, K)
    retained: list[Tensor] = []
    keys: list[Tensor] = []
    values: list[Tensor] = []
    outputs = []
    for x in x_bld.unbind(1):
        q, k, v = (t.reshape(batch, heads, -1) for t in (x @ p["qkv_proj.weight"].T).chunk(3, -1))
        window = [*window[1:], x @ p["w_proj.0.weight"].T @ p["w_proj.1.weight"].T]
        w = sum(p["conv.weight"][:, 0, j] * u for j, u in enumerate(window))
        w = (w * sigmoid(w)).reshape(batch, heads, -1)
        w = w / torch.sqrt((w * w).sum(-1, keepdim=True) + 1e-6)
        beta = 2 * sigmoid(x @ p["beta_proj.weight"].T + p["beta_proj.bias"])
        identity = torch.eye(w.shape[-1], dtype=torch.float64).expand(batch, heads, -1, -1)
        own = identity - beta[..., None, None] * w[..., :, None] * w[..., None, :]
        forget = torch.ones(batch, heads, dtype=torch.float64)
        if "forget_proj.weight" in p:
            forget = sigmoid(x @ p["forget_proj.weight"].T + p["forget_proj.bias"])
        matrices = [own @ m for m in matrices] + [identity]
        retained = [r * forget for r in retained] + [torch.ones_like(forget)]
        keys, values = [*keys, k], [*values, v]
        pairs = zip(matrices, keys, strict=True)
        scores = torch.stack([torch.einsum("bhi,bhij,bhj->bh", q, m, key) for m, key in pairs]) / math.sqrt(q.shape[-1])
        weights = torch.stack(retained) * torch.exp(scores - scores.max(0).values)
        o = (weights[..., None] * torch.stack(values)).sum(0) / weights.sum(0)[..., None]
        outputs.append(o.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"path-attention": path_attention}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("path-attention", {"heads": 4}), ("path-attention", {"heads": 16, "forget": True})]
