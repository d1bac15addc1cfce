"""Gated slot attention as a float64 recurrence over single tokens (arXiv 2409.07146)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def gsa(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads: int = module.heads  # type: ignore[assignment]
    keys: Tensor | float = 0.0
    values: Tensor | float = 0.0
    outputs = []
    for x_bd in x_bld.unbind(1):
        q, k, v = (silu(x_bd @ p[f"{name}_proj.weight"].T).view(len(x_bd), heads, -1) for name in "qkv")
        logit = (x_bd @ p["decay_proj.weight"].T).view(len(x_bd), heads, -1)
        decay = (1 / (1 + torch.exp(-logit))) ** (1 / module.gate_logit_normalizer)
        keys = decay[..., None] * keys + torch.einsum("bhm,bhd->bhmd", 1 - decay, k)
        values = decay[..., None] * values + torch.einsum("bhm,bhd->bhmd", 1 - decay, v)
        weights = torch.exp(torch.einsum("bhd,bhmd->bhm", q, keys))
        weights = weights / weights.sum(-1, keepdim=True)
        o = silu(torch.einsum("bhm,bhmd->bhd", weights, values).flatten(1))
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        outputs.append(o @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"gsa": gsa}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("gsa", {"heads": 1, "num_slots": 3, "gate_logit_normalizer": 1})]
