"""Layers of layers, from the oracles of the layers that they are made of."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests.oracles.routing import routed

Oracle = Callable[[nn.Module, Tensor], Tensor]


def parallel(oracles: Sequence[Oracle], module: nn.Module, x_bld: Tensor) -> Tensor:
    total = torch.zeros_like(x_bld)
    for i, (oracle, branch) in enumerate(zip(oracles, module.branches, strict=True)):
        y = oracle(branch, x_bld)
        if module.gate is not None:
            y = y * 2 / (1 + torch.exp(-(x_bld @ module.gate.weight[i] + module.gate.bias[i])))[..., None]
        total = total + y
    return total


def experts(oracles: Sequence[Oracle], module: nn.Module, x_bld: Tensor) -> Tensor:
    weights, zero = routed(module.router, x_bld, module.router.active)
    return sum(weights[..., e : e + 1] * oracles[0](expert, x_bld) for e, expert in enumerate(module.experts)) + zero


COMPOSITES: dict[str, Callable[[Sequence[Oracle], nn.Module, Tensor], Tensor]] = {"parallel": parallel, "experts": experts}
SPECS = [
    "parallel(mh-attention(heads=2), swiglu)",
    "parallel(mamba, hyena, mlp(expand=2), gate=true)",
    "parallel(mlp, swiglu)",
    "experts(mamba, num=3)",
    "experts(swiglu(inner=32), num=4, active=3)",
    "experts(parallel(retnet, mlp(expand=1)), num=3)",
]
