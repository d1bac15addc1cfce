"""Canon layers, token by token in float64 (arXiv 2512.17351)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def canon(module: nn.Module, x_bld: Tensor) -> Tensor:
    (weight,) = (value.double()[:, 0] for value in module.parameters())
    taps = weight.shape[-1]
    outputs = []
    for t in range(x_bld.shape[1]):
        y = x_bld[:, t]
        for lag in range(min(taps, t + 1)):
            y = y + weight[:, taps - 1 - lag] * x_bld[:, t - lag]
        outputs.append(y)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"canon": canon}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("canon", {"d_conv": 2})]
