"""Log-linear attention in float64, token by token; whenever two buckets have one size, they merge (arXiv 2506.04761)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.mamba2 import silu


def log_linear_attention(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    inner, heads = len(p["norm.weight"]), len(p["A_log"])
    channels, _, taps = p["conv.weight"].shape
    d_state = (channels - inner) // 2
    window = [x_bld.new_zeros(len(x_bld), channels)] * taps
    buckets: list[tuple[int, Tensor]] = []
    outputs = []
    for u_bd in x_bld.unbind(1):
        projected = u_bd @ p["in_proj.weight"].T
        z, dt = projected[:, :inner], torch.log1p(torch.exp(projected[:, inner + channels :] + p["dt_bias"]))
        window = [*window[1:], projected[:, inner : inner + channels]]
        convolved = silu(sum((w * p["conv.weight"][:, 0, j] for j, w in enumerate(window)), p["conv.bias"]))
        x = convolved[:, :inner].view(len(u_bd), heads, -1)
        b, c = convolved[:, inner : inner + d_state], convolved[:, inner + d_state :]
        decay = torch.exp(-dt * torch.exp(p["A_log"]))[..., None, None]
        own = torch.einsum("bh,bhp,bn->bhpn", dt, x, b)
        buckets = [(size, decay * state) for size, state in buckets]
        y = torch.einsum("bhpn,bn->bhp", _weighed(p, u_bd, buckets, own), c) + p["D"][:, None] * x
        buckets = _merged(buckets, own)
        y = y.flatten(1) * silu(z)
        y = y / torch.sqrt((y * y).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        outputs.append(y @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


def log_linear_gated_deltanet(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads: int = module.heads  # type: ignore[assignment]
    max_beta: float = module.max_beta  # type: ignore[assignment]
    dim, taps = x_bld.shape[-1], p["conv.weight"].shape[-1]
    identity = torch.eye(dim // heads, dtype=x_bld.dtype)
    window = [x_bld.new_zeros(len(x_bld), len(p["conv.weight"]))] * taps
    buckets: list[tuple[int, Tensor]] = []
    outputs = []
    for x_bd in x_bld.unbind(1):
        window = [*window[1:], x_bd @ p["qkv_proj.weight"].T]
        convolved = silu(sum(w * p["conv.weight"][:, 0, j] for j, w in enumerate(window)))
        q, k, v = (t.reshape(len(x_bd), heads, -1) for t in torch.tensor_split(convolved, [dim, 2 * dim], dim=-1))
        q, k = (t / torch.sqrt((t * t).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        beta = max_beta / (1 + torch.exp(-x_bd @ p["beta_proj.weight"].T))
        dt = torch.log1p(torch.exp(x_bd @ p["dt_proj.weight"].T + p["dt_bias"]))
        decay = torch.exp(-torch.exp(p["A_log"]) * dt)[..., None, None]
        erase = identity - torch.einsum("bh,bhk,bhj->bhkj", beta, k, k)
        own = torch.einsum("bh,bhk,bhv->bhkv", beta, k, v)
        buckets = [(size, erase @ (decay * state)) for size, state in buckets]
        o = torch.einsum("bhk,bhkv->bhv", q, _weighed(p, x_bd, buckets, own)) / (dim // heads) ** 0.5
        buckets = _merged(buckets, own)
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5) * p["norm.weight"]
        o = o.flatten(1) * silu(x_bd @ p["gate_proj.weight"].T)
        outputs.append(o @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


def _weighed(p: dict[str, Tensor], x_bd: Tensor, buckets: list[tuple[int, Tensor]], own: Tensor) -> Tensor:
    """The states of all buckets as one, each at its weight: level 0 is the token itself, bucket sizes 1, 2, 4, ... follow."""
    scale = p["levels.scale"]
    weights = torch.log1p(torch.exp((x_bd @ p["levels.proj.weight"].T).view(len(x_bd), *scale.shape) * scale))[..., None, None]
    total = weights[:, :, 0] * own
    for size, state in buckets:
        total = total + weights[:, :, 1 + int(math.log2(size))] * state
    return total


def _merged(buckets: list[tuple[int, Tensor]], own: Tensor) -> list[tuple[int, Tensor]]:
    buckets = [*buckets, (1, own)]
    while len(buckets) > 1 and buckets[-1][0] == buckets[-2][0]:
        (size, later), (_, earlier) = buckets.pop(), buckets.pop()
        buckets.append((2 * size, earlier + later))
    return buckets


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "log-linear-attention": log_linear_attention,
    "log-linear-gated-deltanet": log_linear_gated_deltanet,
}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("log-linear-attention", {"d_state": 3, "d_conv": 1, "expand": 1, "headdim": 64}),
    ("log-linear-gated-deltanet", {"heads": 2, "expand_v": 2, "allow_neg_eigval": True}),
]
NO_DECAY: dict[str, tuple[str, ...]] = dict.fromkeys(ORACLES, ("levels.scale",))
