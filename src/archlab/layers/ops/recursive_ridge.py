"""Linear systems of decaying sums of outer products of keys, one a token: what recursive least squares solves."""

from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply_by_sequences
from archlab.layers.ops.precision import no_autocast
from archlab.layers.ops.scalar_decay import scalar_decay_gradients
from archlab.layers.ops.scan import accumulate

_TOGETHER = 64
"""Tokens whose matrices are computed together: about as many as a core's caches hold."""


class _RecursiveRidge(torch.autograd.Function):
    """The gradient of a solution needs no gradients of matrices.

    With ``M x = q`` the gradient of ``q`` is ``M^-1 dx``, that of ``M`` is ``-dq x^T``. All that depends on ``M`` has
    then the gradients of linear attention from queries ``x`` by keys ``k`` to values ``w``, given ``-dq`` for its output's.
    """

    @staticmethod
    def forward(
        ctx: Any, q_blhk: Tensor, k_blhk: Tensor, w_blhk: Tensor, log_decay_blh: Tensor, ridge_bhk: Tensor, chunk: int
    ) -> Tensor:
        x, k, w = (_last(t) for t in (q_blhk, k_blhk, w_blhk))
        decay, ridge = log_decay_blh.exp().transpose(0, 1).flatten(1), ridge_bhk.flatten(0, 1)
        lu, last = x.new_empty(len(x), *x.shape), x.new_zeros(len(x), len(x), x.shape[2])
        for start in range(0, x.shape[1], _TOGETHER):
            some = slice(start, start + _TOGETHER)
            matrices = torch.mul(w[:, None, some], k[None, :, some], out=lu[:, :, some])
            steps = [last, *matrices.unbind(2)]
            accumulate(decay[some].unbind(0), steps)
            last = steps[-1].clone()
            matrices.diagonal(dim1=0, dim2=1).add_(ridge)
            _factorise(matrices)
            _solve(matrices, x[:, some])
        x_blhk = _first(x, q_blhk)
        ctx.save_for_backward(x_blhk, k_blhk, w_blhk, log_decay_blh, lu)
        ctx.chunk = chunk
        return x_blhk

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_blhk, k_blhk, w_blhk, log_decay_blh, lu = ctx.saved_tensors
        with no_autocast(x_blhk):
            dq = _last(grads[0])
            for start in range(0, dq.shape[1], _TOGETHER):
                some = slice(start, start + _TOGETHER)
                _solve(lu[:, :, some], dq[:, some])
            dq_blhk = _first(dq, x_blhk)
            _, dk, dw, ddecay = scalar_decay_gradients(x_blhk, k_blhk, w_blhk, log_decay_blh, -dq_blhk, ctx.chunk)
        return dq_blhk, dk, dw, ddecay, -(dq_blhk * x_blhk).sum(1), None


def _last(x_blhk: Tensor) -> Tensor:
    """(K, L, B * H), a copy."""
    return x_blhk.permute(3, 1, 0, 2).clone(memory_format=torch.contiguous_format).flatten(2)


def _first(x: Tensor, like_blhk: Tensor) -> Tensor:
    """(B, L, H, K) from (K, L, B * H), a copy."""
    batch, length, heads, _ = like_blhk.shape
    return x.view(-1, length, batch, heads).permute(2, 1, 3, 0).contiguous()


def _factorise(matrices: Tensor) -> None:
    """Gaussian elimination in place, of (K, K, ...): of positive definite matrices, without pivots."""
    for j in range(len(matrices) - 1):
        below = matrices[j + 1 :, j].div_(matrices[j, j])
        matrices[j + 1 :, j + 1 :].addcmul_(below[:, None], matrices[j, j + 1 :], value=-1)


def _solve(lu: Tensor, x: Tensor) -> None:
    """Solve for right-hand sides (K, ...) in place."""
    for j in range(len(x) - 1):
        x[j + 1 :].addcmul_(lu[j + 1 :, j], x[j], value=-1)
    for j in reversed(range(len(x))):
        x[j].div_(lu[j, j])
        x[:j].addcmul_(lu[:j, j], x[j], value=-1)


def recursive_ridge(
    q_blhk: Tensor, k_blhk: Tensor, w_blhk: Tensor, log_decay_blh: Tensor, ridge_hk: Tensor, chunk: int
) -> Tensor:
    """``x[t]`` with ``(M[t] + diag(ridge)) x[t] = q[t]`` and ``M[t] = exp(log_decay[t]) M[t-1] + w[t] k[t]^T``.

    ``w`` are the keys times their rates, so that the matrices are symmetric and positive definite; log decays are at most 0,
    ridges positive. ``chunk``, positions a chunk of the backward pass, changes the cost only. The solutions are (B, L, H, K).
    """
    ridge_bhk = ridge_hk.expand(len(q_blhk), *ridge_hk.shape)
    return apply_by_sequences(_RecursiveRidge, q_blhk, k_blhk, w_blhk, log_decay_blh, ridge_bhk, chunk)
