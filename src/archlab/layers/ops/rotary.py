"""Rotary position embedding (RoPE), half-split convention (arXiv 2104.09864, eq. 34; NeoX layout)."""

from typing import Any

import torch
from torch import Tensor

BASE = 10_000.0


def rotate(x: Tensor, positions: Tensor, head_dim: int) -> Tensor:
    """Rotate every head of ``x`` by the angles of its position.

    Within a head of width ``d``, channels ``j`` and ``j + d/2`` form a pair, turned by
    ``position * 10000**(-2j/d)``.

    Args:
        x: ``(..., positions, heads * head_dim)``; the heads lie side by side.
        positions: ``(positions,)`` integers.
        head_dim: width of a head, even.

    Returns:
        The shape and dtype of ``x``.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, head_dim, 2, dtype=wide, device=x.device) / head_dim
    angles = torch.outer(positions.to(wide), BASE**-exponent)
    heads = x.shape[-1] // head_dim
    cos = angles.cos().to(x.dtype).repeat(1, 2 * heads)
    sin = angles.sin().to(x.dtype)
    zero = torch.zeros_like(sin)
    half = head_dim // 2
    from_right = torch.cat((-sin, zero), -1).repeat(1, heads)[:, : x.shape[-1] - half]
    from_left = torch.cat((zero, sin), -1).repeat(1, heads)[:, half:]
    rotated: Tensor = _Rotation.apply(x, cos, from_right, from_left)  # type: ignore[no-untyped-call]
    return rotated


class _Rotation(torch.autograd.Function):
    """Each channel plus its partner, ``half`` channels to the right or left, as three passes over whole rows.

    Pairing the channels by views would leave inner loops of ``head_dim / 2`` elements, and autograd
    would pad a gradient for every slice: twice as slow at any head width. The gradient is the rotation
    by the opposite angle.
    """

    @staticmethod
    def forward(x: Tensor, cos: Tensor, from_right: Tensor, from_left: Tensor) -> Tensor:
        half = x.shape[-1] - from_right.shape[-1]
        out = x * cos
        out[..., :-half].addcmul_(x[..., half:], from_right)
        out[..., half:].addcmul_(x[..., :-half], from_left)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        cos, from_right, from_left = ctx.saved_tensors
        opposite: Tensor = _Rotation.apply(grad, cos, -from_right, -from_left)  # type: ignore[no-untyped-call]
        return opposite, None, None, None
