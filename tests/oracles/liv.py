"""The gated short convolution of LFM2 (arXiv 2511.23404), token by token in float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def liv(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    taps = p["conv.weight"].shape[-1]
    gated, outputs = [torch.zeros_like(x_bld[:, 0])] * taps, []
    for x_bd in x_bld.unbind(1):
        b, c, u = (x_bd @ p["in_proj.weight"].T).chunk(3, -1)
        gated = [*gated[1:], b * u]
        y = c * torch.stack([w * p["conv.weight"][:, 0, j] for j, w in enumerate(gated)]).sum(0)
        outputs.append(y @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"liv": liv}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("liv", {"d_conv": 1}), ("liv", {"d_conv": 7})]
