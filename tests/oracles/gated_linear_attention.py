"""Gated linear attention as a float64 recurrence over single tokens (arXiv 2312.06635, equation 4 and section 4.4)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def gated_linear_attention(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads: int = module.heads  # type: ignore[assignment]
    matrix: Tensor | float = 0.0
    outputs = []
    for x_bd in x_bld.unbind(1):
        q, k, v, g = ((x_bd @ p[f"{name}_proj.weight"].T).view(len(x_bd), heads, -1) for name in "qkvg")
        logit = x_bd @ p["decay_proj.0.weight"].T @ p["decay_proj.1.weight"].T + p["decay_proj.1.bias"]
        decay = torch.exp(-torch.log1p(torch.exp(-logit)) / module.gate_logit_normalizer).view_as(k)
        matrix = decay[..., None] * matrix + torch.einsum("bhk,bhv->bhkv", k, v)
        o = torch.einsum("bhk,bhkv->bhv", q, matrix) / q.shape[-1] ** 0.5
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        o = o * g / (1 + torch.exp(-g))
        outputs.append(o.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "gated-linear-attention": gated_linear_attention,
    "mh-gated-linear-attention": gated_linear_attention,
}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("gated-linear-attention", {"expand_k": 0.5, "expand_v": 2.0}),
    ("mh-gated-linear-attention", {"heads": 4, "gate_low_rank": 3, "gate_logit_normalizer": 1}),
]
# After one token the norm cancels the score, and with it all but rounding of the query's and the key's gradient.
TOLERANCES: dict[str, float] = {
    "gated-linear-attention": 1e-3,
    "gated-linear-attention(expand_k=0.5, expand_v=2.0)": 1e-3,
    "mh-gated-linear-attention(heads=4, gate_low_rank=3, gate_logit_normalizer=1)": 1e-3,
}
