"""S4D as a complex float64 recurrence over single tokens (arXiv 2206.11893), discretised by zero-order hold."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


class ComplexSSM:
    """The state of one sequence after another token: ``h = A' h + B' u``, ``y = 2 Re(C h) + D u``."""

    def __init__(self, p: dict[str, Tensor], prefix: str) -> None:
        dt = torch.exp(p[f"{prefix}log_dt"])[:, None]
        a_cn = torch.complex(-torch.exp(p[f"{prefix}log_rate"]), p[f"{prefix}frequency"])
        self.decay = torch.exp(dt * a_cn)
        self.b = (self.decay - 1) / a_cn
        self.c = torch.view_as_complex(p[f"{prefix}C"])
        self.d = p[f"{prefix}D"]
        self.h: Tensor | float = 0.0

    def __call__(self, u: Tensor) -> Tensor:
        self.h = self.decay * self.h + self.b * u[..., None]
        return 2 * (self.c * self.h).sum(-1).real + self.d * u


def s4d(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    ssm = ComplexSSM(p, "ssm.")
    outputs = []
    for x_bd in x_bld.unbind(1):
        y = ssm(x_bd)
        y = y / 2 * (1 + torch.erf(y / 2**0.5))
        a, b = (y @ p["out_proj.weight"].T + p["out_proj.bias"]).chunk(2, -1)
        outputs.append(a * sigmoid(b))
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"s4d": s4d}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("s4d", {"d_state": 64}), ("s4d", {"d_state": 2})]
NO_DECAY: dict[str, tuple[str, ...]] = {"s4d": ("ssm.log_rate", "ssm.frequency")}
