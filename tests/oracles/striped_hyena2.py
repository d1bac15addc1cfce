"""The Hyena operators of StripedHyena 2 as sums over explicit taps, or over modes, token by token (arXiv 2503.01868)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def signals(p: dict[str, Tensor], x_bld: Tensor) -> list[tuple[Tensor, ...]]:
    """``(x0, x1 * v)`` of every token, behind the short convolution."""
    u = [x @ p["in_proj.weight"].T for x in x_bld.unbind(1)]
    taps = p["short_conv.weight"][:, 0].unbind(-1)
    convolved = [sum(taps[2 - lag] * u[t - lag] for lag in range(min(3, t + 1))) for t in range(len(u))]
    return [(x0, x1 * v) for x0, x1, v in (c.chunk(3, -1) for c in convolved)]


def of_channels(p: dict[str, Tensor], name: str) -> Tensor:
    """A parameter of kernels, (groups, ...), for every channel."""
    value, dim = p[f"filter.{name}"], len(p["out_proj.weight"])
    return torch.stack([value[c * len(value) // dim] for c in range(dim)])


def explicit(p: dict[str, Tensor], x_bld: Tensor, taps: Tensor) -> Tensor:
    pairs = signals(p, x_bld)
    outputs = []
    for t, (x0, signal) in enumerate(pairs):
        filtered = sum(taps[:, lag] * pairs[t - lag][1] for lag in range(min(t + 1, taps.shape[1])))
        outputs.append((x0 * (filtered + p.get("skip", 0) * signal)) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


def hyena_se(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    return explicit(p, x_bld, of_channels(p, "taps"))


def hyena_mr(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    taps, dim, groups = of_channels(p, "taps"), len(p["skip"]), len(p["filter.taps"])
    rates = [10 ** (-2 + 4 * (c * groups // dim) / max(groups - 1, 1)) for c in range(dim)]
    last = module.filter.kernel_size - 1
    window = [[math.exp(-rate * t / max(last, 1)) for t in range(taps.shape[1])] for rate in rates]
    return explicit(p, x_bld, taps * torch.tensor(window, dtype=torch.float64))


def hyena_li(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    residues, decay = of_channels(p, "R"), torch.exp(-torch.exp(of_channels(p, "p")) * torch.exp(of_channels(p, "gamma")))
    modes, outputs = torch.zeros(len(x_bld), *residues.shape, dtype=torch.float64), []
    for x0, signal in signals(p, x_bld):
        modes = decay * modes + signal[..., None]
        outputs.append((x0 * ((residues * modes).sum(-1) + p["skip"] * signal)) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"hyena-se": hyena_se, "hyena-mr": hyena_mr, "hyena-li": hyena_li}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("hyena-se", {"group_size": 128, "kernel_size": 1}),
    ("hyena-mr", {"group_size": 1, "kernel_size": 32}),
    ("hyena-mr", {"group_size": 128, "kernel_size": 200}),
    ("hyena-li", {"group_size": 32, "d_state": 3}),
]
NO_DECAY: dict[str, tuple[str, ...]] = dict.fromkeys(ORACLES, ("filter.*",))
