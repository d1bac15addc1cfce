"""Linear attention as a float64 recurrence over single tokens (arXiv 2006.16236, equations 16 to 20)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

FLOOR = 1e-6


def linear_attention(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads: int = module.heads  # type: ignore[assignment]

    def features(name: str, x_bhd: Tensor) -> Tensor:
        if f"{name}_map.proj.weight" in p:
            logits = 2 * (torch.einsum("bhd,ed->bhe", x_bhd, p[f"{name}_map.proj.weight"]) + p[f"{name}_map.proj.bias"])
            positive = torch.cat([torch.exp(logits), torch.exp(-logits)], -1)
            return positive / positive.sum(-1, keepdim=True)
        if f"{name}_map.factors.weight" not in p:
            return torch.where(x_bhd > 0, x_bhd + 1, torch.exp(x_bhd))
        both = torch.einsum("bhd,ed->bhe", x_bhd, p[f"{name}_map.factors.weight"]) + p[f"{name}_map.factors.bias"]
        return both[..., : x_bhd.shape[-1]] * both[..., x_bhd.shape[-1] :]

    matrix: Tensor | float = 0.0
    keys: Tensor | float = 0.0
    outputs = []
    for x_bd in x_bld.unbind(1):
        q, k, v = ((x_bd @ p[f"{name}_proj.weight"].T).view(len(x_bd), heads, -1) for name in "qkv")
        q, k = features("q", q), features("k", k)
        matrix = matrix + torch.einsum("bhp,bhd->bhpd", k, v)
        keys = keys + k
        mixed = torch.einsum("bhp,bhpd->bhd", q, matrix)
        if module.normalize:
            total = torch.einsum("bhp,bhp->bh", q, keys)[..., None]
            sign = 1 - 2 * (total < 0).double()
            mixed = mixed / (sign * total.abs().clamp(min=FLOOR))
        outputs.append(mixed.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "linear-attention": linear_attention,
    "mh-linear-attention": linear_attention,
}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("linear-attention", {"normalize": False}),
    ("mh-linear-attention", {"feature_map": "elu", "heads": 4}),
    ("mh-linear-attention", {"feature_map": "elu", "heads": 2, "normalize": False}),
    ("mh-linear-attention", {"feature_map": "hedgehog", "heads": 4}),
]
# After one token the output is that token's value whatever the query and the key, so their gradients are pure
# rounding, magnified where the signed denominator is near zero.
TOLERANCES: dict[str, float] = {"linear-attention": 0.03, "mh-linear-attention": 0.1}
