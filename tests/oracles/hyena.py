"""Both Hyena operators as direct float64 convolution sums, position by position (arXiv 2302.10866, 2310.18780, 2405.06147)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def kernels(p: dict[str, Tensor], max_length: int, length: int) -> Tensor:
    """Taps (length, kernels), window and skip connection included."""
    if "filter.numerator" in p:
        return rational_kernels(p, max_length, length)
    rows = []
    for t in range(length):
        z = p["filter.features_lf"][t]
        for i in range(3):
            z = torch.sin(p["filter.frequency"] * (p[f"filter.hidden.{i}.weight"] @ z + p[f"filter.hidden.{i}.bias"]))
        taps = p["filter.taps.weight"] @ z
        n = len(taps)
        rates = [-math.log(0.01) * (1 / 1.5 + (1 / 0.3 - 1 / 1.5) * c / max(n - 1, 1)) for c in range(n)]
        time = t / max(max_length - 1, 1)
        rows.append(taps * torch.tensor([math.exp(-rate * time) for rate in rates], dtype=torch.float64))
    rows[0] = rows[0] + p["skip"]
    return torch.stack(rows)


def rational_kernels(p: dict[str, Tensor], max_length: int, length: int) -> Tensor:
    """The state-space model of every kernel, its read-out converted from wrapped to infinite response, run on an impulse."""
    b, a = p["filter.numerator"], []
    for k in torch.tanh(p["filter.reflection"]).unbind(1):  # Levinson's recursion
        a = [own + k * mirrored for own, mirrored in zip(a, reversed(a), strict=True)] + [k]
    order = b.shape[1]
    companion = torch.cat([-torch.stack(a, -1)[:, None], torch.eye(order, dtype=b.dtype)[:-1].expand(len(b), -1, -1)], 1)
    wrapped = torch.eye(order, dtype=b.dtype) - torch.linalg.matrix_power(companion, max(max_length, order + 1))
    read_out = torch.linalg.solve(wrapped, b[:, None], left=False)
    state = torch.zeros_like(b)
    rows = []
    for t in range(length):
        rows.append((read_out[:, 0] * state).sum(-1))
        state = (companion * state[:, None]).sum(-1)
        if t == 0:
            state = state + torch.eye(order, dtype=b.dtype)[0]
    rows[0] = rows[0] + p["skip"]
    return torch.stack(rows)


def projections(p: dict[str, Tensor], x_bld: Tensor) -> tuple[Tensor, ...]:
    """The three projections (batch, length, inner), from explicitly repeated features and three delayed copies."""
    u = x_bld @ p["in_proj.weight"].T + p["in_proj.bias"]
    weight = p["short_conv.weight"][:, 0]
    u = torch.cat([u] * (len(weight) // u.shape[-1]), dim=-1)
    delayed = [torch.cat([torch.zeros_like(u[:, :lag]), u[:, : u.shape[1] - lag]], dim=1) for lag in range(min(3, u.shape[1]))]
    return (sum(d * weight[:, 2 - lag] for lag, d in enumerate(delayed)) + p["short_conv.bias"]).chunk(3, dim=-1)


def hyena(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    length = x_bld.shape[1]
    x0, x1, v = projections(p, x_bld)
    h = kernels(p, module.max_length, length)
    y = [x0[:, t] * (h[: t + 1].flip(0) * (x1 * v)[:, : t + 1]).sum(1) for t in range(length)]
    return torch.stack(y, 1) @ p["out_proj.weight"].T + p["out_proj.bias"]


def mh_hyena(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    batch, length, dim = x_bld.shape
    heads = len(p["skip"])
    q, v, k = (x.reshape(batch, length, heads, dim // heads) for x in projections(p, x_bld))
    h = kernels(p, module.max_length, length)[..., None, None]
    outer = k[..., :, None] * v[..., None, :]
    filtered = [(h[: t + 1].flip(0) * outer[:, : t + 1]).sum(1) for t in range(length)]
    y = [torch.einsum("bhd,bhde->bhe", q[:, t], filtered[t]) for t in range(length)]
    return torch.stack(y, 1).reshape(batch, length, dim) @ p["out_proj.weight"].T + p["out_proj.bias"]


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"hyena": hyena, "mh-hyena": mh_hyena}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("hyena", {"inner_factor": 1, "proj_groups": 1, "filter_order": 16}),
    ("mh-hyena", {"heads": 8}),
    ("mh-hyena", {"heads": 32, "proj_groups": 1}),
    ("hyena", {"filter": "rtf", "inner_factor": 1}),
    ("hyena", {"filter": "rtf", "inner_factor": 1, "proj_groups": 1, "filter_order": 24}),
    ("mh-hyena", {"filter": "rtf"}),
]
NO_DECAY: dict[str, tuple[str, ...]] = {"hyena": ("filter.*",), "mh-hyena": ("filter.*",)}
