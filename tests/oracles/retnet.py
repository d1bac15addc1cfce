"""Multi-scale retention as a float64 recurrence over single tokens (arXiv 2307.08621, equations 3, 6 and 8)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def retnet(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads: int = module.heads  # type: ignore[assignment]
    pairs = x_bld.shape[-1] // heads // 2
    frequencies = torch.tensor([10_000.0 ** (-j / pairs) for j in range(pairs)], dtype=torch.float64)
    decay = torch.tensor([1 - 2.0 ** (-5 - h) for h in range(heads)], dtype=torch.float64)
    matrix: Tensor | float = 0.0
    outputs = []
    for t, x_bd in enumerate(x_bld.unbind(1)):
        q, k, v, g = ((x_bd @ p[f"{name}_proj.weight"].T).view(len(x_bd), heads, -1) for name in "qkvg")
        turn = torch.polar(torch.ones_like(frequencies), t * frequencies)
        # A pair of channels is a complex number, multiplied by a number of magnitude one.
        q, k = (torch.complex(u[..., :pairs], u[..., pairs:]) * turn for u in (q, k))
        q, k = (torch.cat((u.real, u.imag), -1) for u in (q, k))
        matrix = decay[:, None, None] * matrix + torch.einsum("bhk,bhv->bhkv", k, v)
        o = torch.einsum("bhk,bhkv->bhv", q, matrix) / (2 * pairs) ** 0.5
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5)
        outputs.append((o * g / (1 + torch.exp(-g))).flatten(1) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"retnet": retnet}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("retnet", {"heads": 2, "expand_v": 1})]
