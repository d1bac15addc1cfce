"""H3 as a complex float64 recurrence over single tokens (arXiv 2212.14052, section 3)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.s4d import ComplexSSM


def h3(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    width: int = module.head_dim  # type: ignore[assignment]
    ssm = ComplexSSM(p, "ssm.")
    taps = p["shift.weight"].shape[-1]
    shift = [torch.zeros_like(x_bld[:, 0])] * taps
    outputs = []
    for x_bd in x_bld.unbind(1):
        q, k, v = (x_bd @ p["qkv_proj.weight"].T + p["qkv_proj.bias"]).chunk(3, -1)
        shift = [k, *shift[:-1]]
        k = sum((p["shift.weight"][:, 0, taps - 1 - lag] * before for lag, before in enumerate(shift)), p["shift_skip"] * k)
        q, k, v = (t.reshape(len(x_bd), -1, width) for t in (q, k, v))
        filtered = ssm(torch.einsum("bhd,bhe->bdeh", k, v))
        y = torch.einsum("bhd,bdeh->bhe", q, filtered).flatten(1)
        outputs.append(y @ p["out_proj.weight"].T + p["out_proj.bias"])
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"h3": h3}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("h3", {"head_dim": 1, "d_state": 8}), ("h3", {"d_state": 4, "d_conv": 1})]
NO_DECAY: dict[str, tuple[str, ...]] = {"h3": ("ssm.log_rate", "ssm.frequency")}
