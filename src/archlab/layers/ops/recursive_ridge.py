"""Linear systems of decaying sums of outer products of keys, one a token: what recursive least squares solves."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply_by_sequences
from archlab.layers.ops.precision import no_autocast
from archlab.layers.ops.scalar_decay import scalar_decay_gradients
from archlab.layers.ops.scan import accumulate

_TOGETHER = 64
"""Tokens whose matrices are computed together on a CPU: about as many as a core's caches hold."""
_ELIMINATED = 32
"""The widest matrices that are eliminated step by step, all at once; LAPACK, one at a time, is faster for wider ones."""


class _RecursiveRidge(torch.autograd.Function):
    """The gradient of a solution needs no gradients of matrices.

    With ``M x = q`` the gradient of ``q`` is ``M^-1 dx``, that of ``M`` is ``-dq x^T``. All that depends on ``M`` has
    then the gradients of linear attention from queries ``x`` by keys ``k`` to values ``w``, given ``-dq`` for its output's.
    """

    @staticmethod
    def forward(
        ctx: Any, q_blhk: Tensor, k_blhk: Tensor, w_blhk: Tensor, log_decay_blh: Tensor, ridge_bhk: Tensor, chunk: int
    ) -> Tensor:
        factorise = _eliminate if q_blhk.shape[-1] <= _ELIMINATED else _decompose
        factors = factorise(k_blhk, w_blhk, log_decay_blh.exp(), ridge_bhk)
        x_blhk = _solve(factors, q_blhk)
        ctx.save_for_backward(x_blhk, k_blhk, w_blhk, log_decay_blh, *factors)
        ctx.chunk = chunk
        return x_blhk

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_blhk, k_blhk, w_blhk, log_decay_blh, *factors = ctx.saved_tensors
        with no_autocast(x_blhk):
            dq_blhk = _solve(factors, grads[0])  # the matrices are symmetric
            _, dk, dw, ddecay = scalar_decay_gradients(x_blhk, k_blhk, w_blhk, log_decay_blh, -dq_blhk, ctx.chunk)
        return dq_blhk, dk, dw, ddecay, -(dq_blhk * x_blhk).sum(1), None


def _eliminate(k_blhk: Tensor, w_blhk: Tensor, decay_blh: Tensor, ridge_bhk: Tensor) -> tuple[Tensor, ...]:
    """Factors (K, K, L, B * H) of the matrices, which are positive definite and need no pivots."""
    k, w = _last(k_blhk), _last(w_blhk)
    decay, ridge = decay_blh.transpose(0, 1).flatten(1), ridge_bhk.flatten(0, 1)
    lu, last = k.new_empty(len(k), *k.shape), k.new_zeros(len(k), len(k), k.shape[2])
    together = _TOGETHER if k.is_cpu else k.shape[1]
    for start in range(0, k.shape[1], together):
        some = slice(start, start + together)
        matrices = torch.mul(w[:, None, some], k[None, :, some], out=lu[:, :, some])
        states = matrices.movedim(2, 0)
        states[0].addcmul_(decay[start], last)
        accumulate(decay[some][1:, None, None], states)
        last = states[-1].clone()
        matrices.diagonal(dim1=0, dim2=1).add_(ridge)
        for j in range(len(k) - 1):
            below = matrices[j + 1 :, j].div_(matrices[j, j])
            matrices[j + 1 :, j + 1 :].addcmul_(below[:, None], matrices[j, j + 1 :], value=-1)
    return (lu,)


def _decompose(k_blhk: Tensor, w_blhk: Tensor, decay_blh: Tensor, ridge_bhk: Tensor) -> tuple[Tensor, ...]:
    """Factors (L, B, H, K, K) of the matrices, and their pivots."""
    k, w, decay = (t.transpose(0, 1) for t in (k_blhk, w_blhk, decay_blh))
    matrices = w[..., None] * k[..., None, :]
    accumulate(decay[1:, ..., None, None], matrices)
    matrices.diagonal(dim1=-2, dim2=-1).add_(ridge_bhk)
    return torch.linalg.lu_factor_ex(matrices, check_errors=False)[:2]  # a check would wait for a GPU


def _solve(factors: Sequence[Tensor], b_blhk: Tensor) -> Tensor:
    """Solutions for the right-hand sides ``b``."""
    if len(factors) == 2:
        solved: Tensor = torch.linalg.lu_solve(*factors, b_blhk.transpose(0, 1)[..., None])
        return solved[..., 0].transpose(0, 1)
    batch, length, heads, width = b_blhk.shape
    x = _last(b_blhk)
    together = _TOGETHER if x.is_cpu else length
    for start in range(0, length, together):
        some, lu = x[:, start : start + together], factors[0][:, :, start : start + together]
        for j in range(width - 1):
            some[j + 1 :].addcmul_(lu[j + 1 :, j], some[j], value=-1)
        for j in reversed(range(width)):
            some[j].div_(lu[j, j])
            some[:j].addcmul_(lu[:j, j], some[j], value=-1)
    return x.view(width, length, batch, heads).permute(2, 1, 3, 0).contiguous()


def _last(x_blhk: Tensor) -> Tensor:
    """(K, L, B * H), a copy."""
    return x_blhk.permute(3, 1, 0, 2).clone(memory_format=torch.contiguous_format).flatten(2)


def recursive_ridge(
    q_blhk: Tensor, k_blhk: Tensor, w_blhk: Tensor, log_decay_blh: Tensor, ridge_hk: Tensor, chunk: int
) -> Tensor:
    """``x[t]`` with ``(M[t] + diag(ridge)) x[t] = q[t]`` and ``M[t] = exp(log_decay[t]) M[t-1] + w[t] k[t]^T``.

    ``w`` are the keys times their rates, so that the matrices are symmetric and positive definite; log decays are at most 0,
    ridges positive. ``chunk``, positions a chunk of the backward pass, changes the cost only. The solutions are (B, L, H, K).
    """
    ridge_bhk = ridge_hk.expand(len(q_blhk), *ridge_hk.shape)
    return apply_by_sequences(_RecursiveRidge, q_blhk, k_blhk, w_blhk, log_decay_blh, ridge_bhk, chunk)


def recursive_ridge_flops(width: int, length: int) -> int:
    """Floating-point operations of :func:`recursive_ridge` for one sequence and head."""
    eliminated, decomposed = width * (width - 1) * (2 * width + 5) // 3, 2 * width**3 // 3 + 2 * width**2
    return 2 * length * width**2 + length * (eliminated if width <= _ELIMINATED else decomposed)
