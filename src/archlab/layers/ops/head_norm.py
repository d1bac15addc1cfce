"""Norms of heads to mean 0 and variance 1 on a CPU: PyTorch's layer norm and group norm are made for rows of hundreds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from archlab.layers.ops.members import apply


class HeadNorm(nn.GroupNorm):
    """Group norm (arXiv 1803.08494) of heads, with a weight and a bias for each of their channels."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        """(..., heads, width) to the same shape."""
        if x.is_cpu and not torch.compiler.is_compiling():
            return head_norm(x, self.weight.view(x.shape[-2:]), self.bias.view(x.shape[-2:]), self.eps)
        return super().forward(x.reshape(-1, self.num_channels)).view_as(x)


def head_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` over the last axis.

    Weight and bias, of one shape, expand to ``x``. Forward and backward take 0.45 to 0.75 times the CPU time of
    :func:`torch.nn.functional.group_norm` for 4096 tokens of 128 channels in heads of 64 to 8.
    """
    return apply(_HeadNorm, x, weight, bias, eps)


def normalised(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``x`` of mean 0 and variance 1 along the last axis, and the factor (..., 1) by which it was scaled."""
    centred = x - x.mean(-1, keepdim=True)
    factor = centred.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return centred.mul_(factor), factor


def projected(x: Tensor, normed: Tensor) -> Tensor:
    """``x`` less its mean and its part along ``normed``: but for the factor, the gradient of :func:`normalised`."""
    along = (x * normed).mean(-1, keepdim=True)
    return (x - x.mean(-1, keepdim=True)).sub_(normed * along)


class _HeadNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normed, factor = normalised(x, eps)
        ctx.save_for_backward(normed, factor, weight)
        return (normed * weight).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        normed, factor, weight = ctx.saved_tensors
        dx = projected(dy * weight, normed).mul_(factor)
        return dx, (dy * normed).sum_to_size(weight.shape), dy.sum_to_size(weight.shape), None
