"""Linear systems of decaying sums of outer products of keys, one a token: what recursive least squares solves."""

from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply_by_sequences
from archlab.layers.ops.precision import no_autocast
from archlab.layers.ops.scalar_decay import scalar_decay_gradients
from archlab.layers.ops.scan import accumulate


class _RecursiveRidge(torch.autograd.Function):
    """The gradient of a solution needs no gradients of matrices.

    With ``M x = q`` the gradient of ``q`` is ``M^-1 dx``, that of ``M`` is ``-dq x^T``. All that depends on ``M`` has
    then the gradients of linear attention from queries ``x`` by keys ``k`` to values ``w``, given ``-dq`` for its output's.
    """

    @staticmethod
    def forward(
        ctx: Any, q_blhk: Tensor, k_blhk: Tensor, w_blhk: Tensor, log_decay_blh: Tensor, ridge_bhk: Tensor, chunk: int
    ) -> Tensor:
        k, w, decay = (t.transpose(0, 1) for t in (k_blhk, w_blhk, log_decay_blh.exp()))
        matrices = w[..., None] * k[..., None, :]
        accumulate(decay[1:, ..., None, None].unbind(0), matrices.unbind(0))
        matrices.diagonal(dim1=-2, dim2=-1).add_(ridge_bhk)
        lu, pivots = torch.linalg.lu_factor(matrices)
        x_blhk: Tensor = torch.linalg.lu_solve(lu, pivots, q_blhk.transpose(0, 1)[..., None])[..., 0].transpose(0, 1)
        ctx.save_for_backward(x_blhk, k_blhk, w_blhk, log_decay_blh, lu, pivots)
        ctx.chunk = chunk
        return x_blhk

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_blhk, k_blhk, w_blhk, log_decay_blh, lu, pivots = ctx.saved_tensors
        with no_autocast(x_blhk):
            dx = grads[0].transpose(0, 1)[..., None]
            dq_blhk = torch.linalg.lu_solve(lu, pivots, dx, adjoint=True)[..., 0].transpose(0, 1)
            _, dk, dw, ddecay = scalar_decay_gradients(x_blhk, k_blhk, w_blhk, log_decay_blh, -dq_blhk, ctx.chunk)
        return dq_blhk, dk, dw, ddecay, -(dq_blhk * x_blhk).sum(1), None


def recursive_ridge(
    q_blhk: Tensor, k_blhk: Tensor, w_blhk: Tensor, log_decay_blh: Tensor, ridge_hk: Tensor, chunk: int
) -> Tensor:
    """``x[t]`` with ``(M[t] + diag(ridge)) x[t] = q[t]`` and ``M[t] = exp(log_decay[t]) M[t-1] + w[t] k[t]^T``.

    ``w`` are the keys times their rates, so that the matrices are symmetric and positive definite; log decays are at most 0,
    ridges positive. ``chunk``, positions a chunk of the backward pass, changes the cost only. The solutions are (B, L, H, K).
    """
    ridge_bhk = ridge_hk.expand(len(q_blhk), *ridge_hk.shape)
    return apply_by_sequences(_RecursiveRidge, q_blhk, k_blhk, w_blhk, log_decay_blh, ridge_bhk, chunk)
