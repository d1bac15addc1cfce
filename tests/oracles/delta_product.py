"""DeltaProduct as a float64 recurrence of products of Householder matrices (arXiv 2502.10297, equations 4 to 6)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def delta_product(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, steps = int(module.heads), int(module.householders)  # type: ignore[arg-type]
    max_beta = float(module.max_beta)  # type: ignore[arg-type]
    batch, _, dim = x_bld.shape
    taps, values = p["conv.weight"].shape[-1], p["out_proj.weight"].shape[1]
    matrix = x_bld.new_zeros(batch, heads, dim // heads, values // heads)
    window = [x_bld.new_zeros(batch, len(p["conv.weight"]))] * taps
    identity = torch.eye(dim // heads, dtype=x_bld.dtype)
    outputs = []
    for x in x_bld.unbind(1):
        window = [*window[1:], x @ p["qkv_proj.weight"].T]
        convolved = sum(w * p["conv.weight"][:, 0, j] for j, w in enumerate(window))
        convolved = convolved * sigmoid(convolved)
        q, k, v = torch.split(convolved, [dim, steps * dim, steps * values], dim=-1)
        q, k, v = q.reshape(batch, 1, heads, -1), k.reshape(batch, steps, heads, -1), v.reshape(batch, steps, heads, -1)
        q, k = (t / torch.sqrt((t * t).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        beta = max_beta * sigmoid(x @ p["beta_proj.weight"].T).reshape(batch, steps, heads)
        if "A_log" in p:
            dt = torch.log1p(torch.exp(x @ p["dt_proj.weight"].T + p["dt_bias"]))
            matrix = matrix * torch.exp(-torch.exp(p["A_log"]) * dt)[..., None, None]
        product, added = identity.expand(batch, heads, -1, -1), torch.zeros_like(matrix)
        for j in range(steps):
            householder = identity - torch.einsum("bh,bhk,bhj->bhkj", beta[:, j], k[:, j], k[:, j])
            product = householder @ product
            added = householder @ added + torch.einsum("bh,bhk,bhv->bhkv", beta[:, j], k[:, j], v[:, j])
        matrix = product @ matrix + added
        o = torch.einsum("bhk,bhkv->bhv", q[:, 0], matrix) / (dim // heads) ** 0.5
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        if "gate_proj.weight" in p:
            gate = (x @ p["gate_proj.weight"].T).view_as(o)
            o = o * gate * sigmoid(gate)
        outputs.append(o.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"deltaproduct": delta_product, "gated-deltaproduct": delta_product}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("deltaproduct", {"heads": 4, "householders": 3, "allow_neg_eigval": False}),
    ("gated-deltaproduct", {"heads": 16, "expand_v": 2, "householders": 1, "d_conv": 2}),
]
