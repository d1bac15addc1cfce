"""Native sparse attention one query at a time in float64 (arXiv 2502.11089, equations 5 to 12)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def rotated(x: Tensor, position: int) -> Tensor:
    """Heads (..., width), pairs of channels half a head apart."""
    half = x.shape[-1] // 2
    angle = position * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], -1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One query (width) over keys and values (tokens, width): the output, and the weights."""
    weights = torch.softmax(k @ q / math.sqrt(len(q)), 0)
    return weights @ v, weights


def nsa(module: nn.Module, x_bld: Tensor) -> Tensor:
    return torch.stack([_of_sequence(module, x_ld) for x_ld in x_bld])


def _of_sequence(module: Any, x_ld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, groups, width, size = module.heads, module.kv_heads, module.head_dim, module.block
    dim, kv_dim = heads * width, groups * width
    maps = torch.split(p["qkv_proj.weight"], [dim, *[kv_dim] * 6])
    q = torch.stack([rotated((x @ maps[0].T).view(heads, width), t) for t, x in enumerate(x_ld)])
    keys = [torch.stack([rotated((x @ w.T).view(groups, width), t) for t, x in enumerate(x_ld)]) for w in maps[1:4]]
    values = [(x_ld @ w.T).view(-1, groups, width) for w in maps[4:]]

    def compressed(which: int, tokens: Tensor) -> Tensor:
        """The blocks (blocks, groups, width) of tokens (tokens, groups, width)."""
        found = []
        for start in range(0, len(tokens) // size * size, size):
            inner = tokens[start : start + size].transpose(0, 1).flatten(1) @ p[f"compress.{which}.0.weight"].T
            inner = nn.functional.gelu(inner + p[f"compress.{which}.0.bias"])
            found.append(inner @ p[f"compress.{which}.2.weight"].T + p[f"compress.{which}.2.bias"])
        return torch.stack(found) if found else tokens[:0]

    block_keys, block_values = compressed(0, keys[0]), compressed(1, values[0])
    outputs = []
    for t, x in enumerate(x_ld):
        gates = torch.sigmoid(x @ p["gate_proj.weight"].T + p["gate_proj.bias"]).view(3, heads)
        mixed = torch.zeros(heads, width, dtype=torch.float64)
        whole = (t + 1) // size
        for group in range(groups):
            members = range(group * heads // groups, (group + 1) * heads // groups)
            worth = torch.zeros(whole, dtype=torch.float64)
            for head in members:
                if whole:
                    out, weights = attention(q[t, head], block_keys[:whole, group], block_values[:whole, group])
                    mixed[head] = mixed[head] + gates[0, head] * out
                    worth = worth + weights.detach()
            always = {0, t // size, max(0, t // size - 1)}
            others = sorted((n for n in range(whole) if n not in always), key=lambda n: -float(worth[n]))
            chosen = always | {*others[: max(0, module.selected - len(always))]}
            tokens = [s for s in range(t + 1) if s // size in chosen]
            recent = slice(max(0, t - module.window + 1), t + 1)
            for head in members:
                selected, _ = attention(q[t, head], keys[1][tokens, group], values[1][tokens, group])
                near, _ = attention(q[t, head], keys[2][recent, group], values[2][recent, group])
                mixed[head] = mixed[head] + gates[1, head] * selected + gates[2, head] * near
        outputs.append(mixed.flatten() @ p["out_proj.weight"].T)
    return torch.stack(outputs)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"nsa": nsa}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("nsa", {"heads": 4, "kv_heads": 2, "block": 4, "selected": 4, "window": 5}),
    ("nsa", {"heads": 8, "kv_heads": 8, "block": 1, "selected": 3, "window": 1}),
]
