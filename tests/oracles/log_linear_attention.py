"""Log-linear Mamba-2 in float64: for every token, the buckets of its past are cut anew, and their states summed up."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.mamba2 import silu


def log_linear_attention(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    inner, (heads, levels) = len(p["norm.weight"]), p["level_weight"].shape
    channels, _, taps = p["conv.weight"].shape
    d_state = (channels - inner) // 2
    window = [x_bld.new_zeros(len(x_bld), channels)] * taps
    written: list[Tensor] = []
    outputs = []
    for position, u_bd in enumerate(x_bld.unbind(1)):
        projected = u_bd @ p["in_proj.weight"].T
        z, dt = projected[:, :inner], torch.log1p(torch.exp(projected[:, inner + channels :] + p["dt_bias"]))
        window = [*window[1:], projected[:, inner : inner + channels]]
        convolved = silu(sum((w * p["conv.weight"][:, 0, j] for j, w in enumerate(window)), p["conv.bias"]))
        x = convolved[:, :inner].view(len(u_bd), heads, -1)
        b, c = convolved[:, inner : inner + d_state], convolved[:, inner + d_state :]
        decay = torch.exp(-dt * torch.exp(p["A_log"]))[..., None, None]
        written = [decay * one for one in written] + [torch.einsum("bh,bhp,bn->bhpn", dt, x, b)]
        weights = (u_bd @ p["level_proj.weight"].T).view(len(u_bd), heads, levels) * p["level_weight"]
        weights = torch.log1p(torch.exp(weights))
        y = p["D"][:, None] * x
        for level, bucket in _buckets(position):
            read = torch.einsum("bhpn,bn->bhp", sum(written[s] for s in bucket), c)
            y = y + weights[:, :, level, None] * read
        y = y.flatten(1) * silu(z)
        y = y / torch.sqrt((y * y).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        outputs.append(y @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


def _buckets(position: int) -> list[tuple[int, range]]:
    """The level and the tokens of each bucket: the largest power of two first, from the beginning of the sequence."""
    found, start = [(0, range(position, position + 1))], 0
    for level in reversed(range(1, 20)):
        size = 2 ** (level - 1)
        if start + size <= position:
            found.append((level, range(start, start + size)))
            start += size
    return found


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"log-linear-attention": log_linear_attention}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("log-linear-attention", {"d_state": 3, "d_conv": 1, "expand": 1, "headdim": 64}),
]
