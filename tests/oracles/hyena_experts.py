"""Hyena experts as a direct float64 convolution sum, channel c being of expert c modulo their number."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.hyena import kernels, projections
from tests.oracles.routing import routed


def hyena_experts(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    length, num = x_bld.shape[1], len(p["router.linear.weight"])
    weights, zero = routed(module.router, x_bld, module.router.active, module.router.balance is None)
    x0, x1, v = projections(p, x_bld)
    h = kernels(p, module.max_length, length)
    outputs = []
    for t in range(length):
        y = x0[:, t] * (h[: t + 1].flip(0) * (x1 * v)[:, : t + 1]).sum(1)
        outputs.append(sum(weights[:, t, e : e + 1] * y[:, e::num] for e in range(num)))
    return torch.stack(outputs, 1) @ p["out_proj.weight"].T + p["out_proj.bias"] + zero


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"hyena-experts": hyena_experts}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("hyena-experts", {"num": 3, "inner": 7, "filter_order": 4}),
    ("hyena-experts", {"num": 3, "inner": 0}),
    ("hyena-experts", {"reference": True}),
]
NO_DECAY: dict[str, tuple[str, ...]] = {"hyena-experts": ("filter.*",)}
