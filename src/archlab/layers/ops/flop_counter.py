"""Counts the operations that a layer executes, also those that PyTorch's own counter does not know."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import archlab.layers.ops.rotary_attention  # noqa: F401 - registers its operators

aten = torch.ops.aten


def count_flops(module: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations that ``module(*inputs)`` executes, by the conventions of ``LayerConfig.flops``.

    PyTorch's counter covers matrix products, convolutions and attention on a GPU; added here are
    transforms (2.5 n log2 n for a real one), attention on a CPU, linear systems (2/3 n^3 and
    2 n^2 a column; triangular ones n^2 a column), matrix-vector products, ``lerp`` and ``addcmul``, of
    which scans and short convolutions are made (2 an element).
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def formulas() -> dict[Any, Callable[..., int]]:
    """The FLOPs of every operator that has any, as functions of its arguments and of its result ``out_val``."""
    return {**flop_registry, **_FORMULAS}


def _transforms(x: Tensor, dims: list[int], per_point: float) -> int:
    points = math.prod(x.shape[dim] for dim in dims)
    return round(per_point * x.numel() * math.log2(points))


_FORMULAS: dict[Any, Callable[..., int]] = {
    aten._fft_r2c: lambda x, dims, *_, **__: _transforms(x, dims, 2.5),
    aten._fft_c2r: lambda x, dims, *_, out_val, **__: _transforms(out_val, dims, 2.5),
    aten._fft_c2c: lambda x, dims, *_, **__: _transforms(x, dims, 5),
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: (
        2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
    ),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, q, k, v, *__, **___: (
        2 * q.shape[:-1].numel() * k.shape[-2] * (3 * q.shape[-1] + 2 * v.shape[-1])
    ),
    torch.ops.archlab.rotary_attention: lambda qkv_cbl, *_, **__: 4 * qkv_cbl.numel() // 3 * qkv_cbl.shape[-1],
    aten._linalg_solve_ex: lambda a, b, *_, **__: 2 * a.shape[-1] * a.numel() // 3 + 2 * a.shape[-1] * b.numel(),
    aten.linalg_lu_factor_ex: lambda a, *_, **__: 2 * a.shape[-1] * a.numel() // 3,
    aten.linalg_lu_solve: lambda lu, pivots, b, **__: 2 * lu.shape[-1] * b.numel(),
    aten.linalg_solve_triangular: lambda a, b, *_, **__: a.shape[-1] * b.numel(),
    aten.mv: lambda matrix, *_, **__: 2 * matrix.numel(),
    aten.baddbmm_: lambda _, a, b, **__: 2 * a.numel() * b.shape[-1],
    aten.addcmul: lambda *_, out_val, **__: 2 * out_val.numel(),
    aten.lerp: lambda *_, out_val, **__: 2 * out_val.numel(),
    aten.addcmul_: lambda *_, out_val, **__: 2 * out_val.numel(),
}
for formula in _FORMULAS.values():
    formula._get_raw = True  # type: ignore[attr-defined]  # the counter's switch to hand over tensors, not shapes
