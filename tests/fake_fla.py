"""A stand-in for ``fla.ops``: its functions by their conventions, as recurrences over single tokens; and who calls which."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from archlab.layers.ops import kernels

USERS = {
    "deltanet": "chunk_gated_delta_rule",
    "gated-deltanet": "chunk_gated_delta_rule",
    "gated-linear-attention": "chunk_gla",
    "gsa": "chunk_gla",
    "hgrn2": "chunk_gla",
    "kda": "chunk_kda",
    "linear-attention(feature_map=elu)": "chunk_linear_attn",
    "mamba-2": "chunk_simple_gla",
    "mesa-net": "chunk_simple_gla",
    "mh-gated-linear-attention": "chunk_gla",
    "mh-linear-attention(feature_map=elu)": "chunk_linear_attn",
    "mlstm": "chunk_simple_gla",
    "retnet": "chunk_simple_gla",
    "rwkv-5": "chunk_gla",
    "rwkv-6": "chunk_gla",
    "rwkv-7": "chunk_dplr_delta_rule",
}
"""The layers that take a kernel, and which. Denominators of linear attention that change their sign magnify all rounding."""


def install(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Put the stand-in where the package would be, on a CPU; what its functions were last given, by their names."""
    given: dict[str, dict[str, Any]] = {}

    def function(name: str) -> Any:
        def run(**arguments: Any) -> tuple[Tensor, None]:
            given[name] = arguments
            return recurrence(**arguments), None

        return run

    ops = ModuleType("fla.ops")
    for name in set(USERS.values()):
        setattr(ops, name, function(name))
    monkeypatch.setitem(sys.modules, "fla", ModuleType("fla"))
    monkeypatch.setitem(sys.modules, "fla.ops", ops)
    monkeypatch.setattr(kernels, "_DEVICE", "cpu")
    return given


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    g: Tensor | None = None,
    gk: Tensor | None = None,
    beta: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Of any of the functions, in float32, with the outputs in the dtype of the values."""
    log_decay = torch.zeros_like(k) if g is None and gk is None else (g if gk is None else gk)
    log_decay = log_decay[..., None].expand_as(k) if log_decay.ndim == 3 else log_decay
    state, outputs = torch.zeros(len(q), *q.shape[2:], v.shape[-1]), []
    for t in range(q.shape[1]):
        before, state = state, log_decay[:, t].exp()[..., None] * state
        written = v[:, t].float()
        if a is not None:
            state = state + torch.einsum("bhk,bhj,bhjv->bhkv", b[:, t].float(), a[:, t].float(), before)
        if beta is not None:
            written = beta[:, t, :, None] * (written - torch.einsum("bhk,bhkv->bhv", k[:, t].float(), state))
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t].float(), written)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t].float(), state))
    return torch.stack(outputs, 1).to(v.dtype)
