"""Multi-head latent attention one query at a time in float64, with keys and values of every head written out."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.attention import turned


def mla(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = dict(module.named_parameters())
    heads: int = module.heads  # type: ignore[assignment]
    inner, kv_rank = p["out_proj.weight"].shape[1], len(p["kv_norm.weight"])
    keys, values, outputs = [], [], []
    for position, x_bd in enumerate(x_bld.unbind(1)):
        down = x_bd @ p["kv_down.weight"].T
        latent = _normed(down[:, :kv_rank], p["kv_norm.weight"])
        key_rotated = turned(down[:, kv_rank:], position)
        up = (latent @ p["kv_up.weight"].T).view(len(x_bd), 2, heads, -1)
        keys.append(torch.stack([torch.cat((up[:, 0, head], key_rotated), -1) for head in range(heads)], 1))
        values.append(up[:, 1])

        query = _normed(x_bd @ p["q_down.weight"].T, p["q_norm.weight"]) @ p["q_up.weight"].T
        still = query[:, :inner].reshape(len(x_bd), heads, -1)
        rotated = turned(query[:, inner:].reshape(len(x_bd), heads, -1), position)
        query_bhd = torch.cat((still, rotated), -1)
        scores_bth = torch.stack([(query_bhd * key).sum(-1) for key in keys], 1) / math.sqrt(query_bhd.shape[-1])
        weights = scores_bth.exp() / scores_bth.exp().sum(1, keepdim=True)
        mixed = sum(weights[:, t, :, None] * value for t, value in enumerate(values))
        outputs.append(mixed.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"mla": mla}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("mla", {"heads": 3, "head_dim": 5, "rope_dim": 2, "kv_rank": 7, "q_rank": 9}),
    ("mla", {"heads": 1, "rope_dim": 32}),
]
