"""RWKV-5 and RWKV-6 as float64 recurrences over single tokens (arXiv 2404.05892)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def time_mixing(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    heads, width = p["bonus"].shape
    matrix = x_bld.new_zeros(len(x_bld), heads, width, width)
    last = torch.zeros_like(x_bld[:, 0])
    outputs = []
    for x_bd in x_bld.unbind(1):
        mixes, log_rate = list(p["mix"]), p["log_rate"]
        if "mix_up" in p:
            low_rank = torch.tanh((x_bd + p["mix_of_mixes"] * (last - x_bd)) @ p["mix_down"]).chunk(5, -1)
            mixes = [mix + low @ up for mix, low, up in zip(mixes, low_rank, p["mix_up"], strict=True)]
            for_decay = (1 - mixes[4]) * x_bd + mixes[4] * last
            log_rate = log_rate + torch.tanh(for_decay @ p["decay_down"]) @ p["decay_up"]
        for_r, for_k, for_v, for_g = ((1 - mix) * x_bd + mix * last for mix in mixes[:4])
        r, k, v = for_r @ p["r_proj.weight"].T, for_k @ p["k_proj.weight"].T, for_v @ p["v_proj.weight"].T
        r, k, v = (t.view(-1, heads, width) for t in (r, k, v))
        own = torch.einsum("bhk,bhv->bhkv", k, v)
        o = torch.einsum("bhk,bhkv->bhv", r, matrix + p["bonus"][..., None] * own) / 8
        matrix = torch.exp(-torch.exp(log_rate)).expand_as(x_bd).reshape(-1, heads, width, 1) * matrix + own
        o = o - o.mean(-1, keepdim=True)
        o = (o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-5)).flatten(1) * p["norm.weight"] + p["norm.bias"]
        g = for_g @ p["g_proj.weight"].T
        outputs.append((o * g * sigmoid(g)) @ p["out_proj.weight"].T)
        last = x_bd
    return torch.stack(outputs, 1)


def channel_mixing(module: nn.Module, x_bld: Tensor) -> Tensor:
    p = {name: value.double() for name, value in module.named_parameters()}
    last = torch.zeros_like(x_bld[:, 0])
    outputs = []
    for x_bd in x_bld.unbind(1):
        for_r, for_k = ((1 - mix) * x_bd + mix * last for mix in p["mix"])
        k = (for_k @ p["k_proj.weight"].T).clamp(min=0)
        outputs.append(sigmoid(for_r @ p["r_proj.weight"].T) * ((k * k) @ p["v_proj.weight"].T))
        last = x_bd
    return torch.stack(outputs, 1)


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "rwkv-5": time_mixing,
    "rwkv-6": time_mixing,
    "rwkv-5-channel-mixer": channel_mixing,
    "rwkv-6-channel-mixer": channel_mixing,
}
CONFIGS: list[tuple[str, dict[str, Any]]] = [("rwkv-6", {"heads": 2})]
NO_DECAY: dict[str, tuple[str, ...]] = {
    "rwkv-5": ("mix", "bonus"),
    "rwkv-6": ("mix", "bonus", "mix_down", "mix_up", "decay_down", "decay_up"),
    "rwkv-5-channel-mixer": ("mix",),
    "rwkv-6-channel-mixer": ("mix",),
}
