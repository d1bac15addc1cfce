"""Rotary position embedding (RoPE), half-split convention (arXiv 2104.09864, eq. 34; NeoX layout)."""

from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply

BASE = 10_000.0


def rotate(x: Tensor, positions: Tensor, head_dim: int) -> Tensor:
    """Rotate every head of ``x`` by the angles of its position.

    Within a head of width ``d``, channels ``j`` and ``j + d/2`` form a pair, turned by
    ``position * 10000**(-2j/d)``.

    The heads, of even width, lie side by side: ``x`` is (..., positions, heads * head_dim), and so is what is returned.
    """
    angles = _angles(positions, head_dim, x.dtype)
    heads = x.shape[-1] // head_dim
    cos = angles.cos().to(x.dtype).repeat(1, 2 * heads)
    sin = angles.sin().to(x.dtype)
    zero = torch.zeros_like(sin)
    half = head_dim // 2
    from_right = torch.cat((-sin, zero), -1).repeat(1, heads)[:, : x.shape[-1] - half]
    from_left = torch.cat((zero, sin), -1).repeat(1, heads)[:, half:]
    return apply(_Rotation, x, cos, from_right, from_left)


def turn(x_hdbl: Tensor, *, backwards: bool = False) -> Tensor:
    """:func:`rotate` for channel-major heads at positions 0 ... L - 1; not differentiable, its adjoint turns ``backwards``."""
    head_dim, length = x_hdbl.shape[1], x_hdbl.shape[-1]
    angles_d1l = _angles(torch.arange(length, device=x_hdbl.device), head_dim, x_hdbl.dtype).t()[:, None].contiguous()
    cos, sin = angles_d1l.cos().to(x_hdbl.dtype), angles_d1l.sin().to(x_hdbl.dtype)
    left, right = x_hdbl.chunk(2, 1)
    out = torch.empty_like(x_hdbl)
    out_left, out_right = out.chunk(2, 1)
    torch.mul(left, cos, out=out_left).addcmul_(right, sin, value=1 if backwards else -1)
    torch.mul(right, cos, out=out_right).addcmul_(left, sin, value=-1 if backwards else 1)
    return out


def _angles(positions: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
    """``(positions, head_dim / 2)``, in at least float32."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, head_dim, 2, dtype=wide, device=positions.device) / head_dim
    return torch.outer(positions.to(wide), BASE**-exponent)


class _Rotation(torch.autograd.Function):
    """Each channel plus its partner, ``half`` channels to the right or left, as three passes over whole rows.

    Pairing the channels by views would leave inner loops of ``head_dim / 2`` elements, and autograd
    would pad a gradient for every slice: twice as slow at any head width. The gradient is the rotation
    by the opposite angle.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, from_right: Tensor, from_left: Tensor) -> Tensor:
        ctx.save_for_backward(cos, from_right, from_left)
        half = x.shape[-1] - from_right.shape[-1]
        out = x * cos
        out[..., :-half].addcmul_(x[..., half:], from_right)
        out[..., half:].addcmul_(x[..., :-half], from_left)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        cos, from_right, from_left = ctx.saved_tensors
        opposite: Tensor = _Rotation.apply(grad, cos, -from_right, -from_left)  # type: ignore[no-untyped-call]
        return opposite, None, None, None
