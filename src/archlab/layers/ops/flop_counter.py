"""Counts the operations that a layer executes, also those that PyTorch's own counter does not know."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import archlab.layers.ops.rotary_attention  # noqa: F401 - registers its operators

aten = torch.ops.aten


def count_flops(module: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations that ``module(*inputs)`` executes, by the conventions of ``LayerConfig.flops``.

    PyTorch's counter covers matrix products, convolutions and attention on a GPU; added here are
    transforms (2.5 n log2 n for a real one), attention on a CPU, linear systems (2/3 n^3 and
    2 n^2 a column; triangular ones n^2 a column), matrix-vector products and ``addcmul``, of
    which scans and short convolutions are made (2 an element).
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    formula._get_raw = True  # type: ignore[attr-defined]  # the counter's switch to hand over tensors, not shapes
    return formula


@_raw
def _real_to_complex(x: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return _transforms(x, dims, per_point=2.5)


@_raw
def _complex_to_real(x: Tensor, dims: list[int], *_: Any, out_val: Tensor, **__: Any) -> int:
    return _transforms(out_val, dims, per_point=2.5)


@_raw
def _complex_to_complex(x: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return _transforms(x, dims, per_point=5)


def _transforms(x: Tensor, dims: list[int], per_point: float) -> int:
    points = math.prod(x.shape[dim] for dim in dims)
    return round(per_point * x.numel() * math.log2(points))


@_raw
def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])


@_raw
def _rotary_attention(qkv_cbl: Tensor, *_: Any, **__: Any) -> int:
    return 4 * qkv_cbl.numel() // 3 * qkv_cbl.shape[-1]


@_raw
def _matrix_vector(matrix: Tensor, *_: Any, **__: Any) -> int:
    return 2 * matrix.numel()


@_raw
def _solve(matrix: Tensor, columns: Tensor, *_: Any, **__: Any) -> int:
    n = matrix.shape[-1]
    return 2 * n * n * matrix.numel() // (3 * n) + 2 * n * columns.numel()


@_raw
def _factorize(matrix: Tensor, *_: Any, **__: Any) -> int:
    return 2 * matrix.shape[-1] * matrix.numel() // 3


@_raw
def _solve_factorized(lu: Tensor, pivots: Tensor, columns: Tensor, **__: Any) -> int:
    return 2 * lu.shape[-1] * columns.numel()


@_raw
def _solve_triangular(matrix: Tensor, columns: Tensor, *_: Any, **__: Any) -> int:
    return matrix.shape[-1] * columns.numel()


@_raw
def _addcmul(*_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * out_val.numel()


_FORMULAS: dict[Any, Any] = {
    aten._fft_r2c: _real_to_complex,
    aten._fft_c2r: _complex_to_real,
    aten._fft_c2c: _complex_to_complex,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.archlab.rotary_attention: _rotary_attention,
    aten._linalg_solve_ex: _solve,
    aten.linalg_lu_factor_ex: _factorize,
    aten.linalg_lu_solve: _solve_factorized,
    aten.linalg_solve_triangular: _solve_triangular,
    aten.mv: _matrix_vector,
    aten.addcmul: _addcmul,
    aten.addcmul_: _addcmul,
}
