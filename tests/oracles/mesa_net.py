"""MesaNet as a float64 recurrence over single tokens (arXiv 2506.05233, equations 7 to 9)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def mesa_net(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, width = p["ridge"].shape
    ridge = torch.diag_embed(torch.log1p(torch.exp(p["ridge"])) + 0.25)
    kk = kv = x_bld.new_zeros(len(x_bld), heads, width, width)
    taps = p["conv.weight"].shape[-1]
    window = [x_bld.new_zeros(len(x_bld), 2 * heads * width)] * taps
    outputs = []
    for x_bd in x_bld.unbind(1):
        window = [*window[1:], x_bd @ p["qk_proj.weight"].T]
        qk = sum(w * p["conv.weight"][:, 0, j] for j, w in enumerate(window))
        q, k = (qk * sigmoid(qk)).view(-1, 2, heads, width).unbind(1)
        q, k = (t / torch.sqrt((t * t).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        v = (x_bd @ p["v_proj.weight"].T).view_as(k)
        decay, rate = (sigmoid(x_bd @ p[f"{n}_proj.weight"].T + p[f"{n}_proj.bias"]) for n in ("decay", "rate"))
        kk = decay[..., None, None] * kk + torch.einsum("bh,bhi,bhj->bhij", rate, k, k)
        kv = decay[..., None, None] * kv + torch.einsum("bh,bhi,bhj->bhij", rate, k, v)
        o = torch.einsum("bhij,bhik,bhk->bhj", kv, torch.linalg.inv(kk + ridge), q)
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        outputs.append(o.flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"mesa-net": mesa_net}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("mesa-net", {"heads": 8, "d_conv": 1})]
NO_DECAY: dict[str, tuple[str, ...]] = {"mesa-net": ("ridge",)}
