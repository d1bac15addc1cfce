"""TTT-Linear token by token in float64, the inner gradient by autograd (arXiv 2407.04620, equations 3, 4, 7; section 2.7)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-6)


def ttt_linear(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, _, width = p["inner"].shape
    mini_batch = len(p["step_offset"])
    gain, shift = p["inner_norm_weight"][:, 0], p["inner_norm_bias"][:, 0]
    frequencies = torch.tensor([10_000.0 ** (-2 * j / width) for j in range(width // 2)], dtype=torch.float64)
    weight = p["inner"][:, :-1].expand(len(x_bld), -1, -1, -1)
    bias = p["inner"][:, -1].expand(len(x_bld), -1, -1)
    dweight, dbias, scale = torch.zeros_like(weight), torch.zeros_like(bias), x_bld.new_zeros(())
    outputs = []
    for t, x_bd in enumerate(x_bld.unbind(1)):
        place = t % mini_batch
        if place == 0:
            weight, bias = weight - scale * dweight, bias - scale * dbias
            dweight, dbias = torch.zeros_like(weight), torch.zeros_like(bias)
        q, k, v = (x_bd @ p["qkv_proj.weight"].T).view(-1, 3, heads, width).unbind(1)
        turn = torch.polar(torch.ones_like(frequencies), place * frequencies)
        # A pair of channels is a complex number, multiplied by a number of magnitude one.
        q, k = (torch.complex(*u.chunk(2, -1)) * turn for u in (q, k))
        q, k = (torch.cat((u.real, u.imag), -1) for u in (q, k))
        rate = module.max_rate / (1 + torch.exp(-(x_bd @ p["rate_proj.weight"].T + p["rate_proj.bias"])))
        fitted = norm(torch.einsum("bhi,bhij->bhj", k, weight) + bias) * gain + shift
        loss = ((fitted - (v - k)) ** 2).sum() / 2
        one_weight, one_bias = torch.autograd.grad(loss, (weight, bias), create_graph=True)
        dweight, dbias = dweight + rate[..., None, None] * one_weight, dbias + rate[..., None] * one_bias
        scale = torch.clamp(1 / (place + 1) + p["step_offset"][place], min=0)
        z = torch.einsum("bhi,bhij->bhj", q, weight - scale * dweight) + bias - scale * dbias
        o = (q + norm(z) * gain + shift).flatten(1)
        outputs.append((norm(o) * p["norm.weight"] + p["norm.bias"]) @ p["out_proj.weight"].T)
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"ttt-linear": ttt_linear}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("ttt-linear", {"heads": 4, "mini_batch": 5, "base_lr": 0.3})]
NO_DECAY: dict[str, tuple[str, ...]] = {"ttt-linear": ("inner", "inner_norm_*")}
