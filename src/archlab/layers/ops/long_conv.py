"""Causal convolutions whose kernel is as long as the sequence, or at least too long for a sum over its taps.

Tensors are channel-major, ``(channels, batch, length)``: a transform runs along contiguous memory, one
channel's Toeplitz matrix multiplies the whole batch, and a projection ``W x^T`` writes this layout
directly. Both forms walk over blocks of channels that stay in cache and recompute in the backward
pass what they do not want to keep.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import at_least_float32, no_autocast

TOEPLITZ_MAX_LENGTH = 128
"""Up to this length a depthwise convolution multiplies by Toeplitz matrices, beyond it transforms."""
BAND_MAX_TAPS = 64
"""Up to this many taps, fewer than positions, it does neither: it multiplies blocks of positions by a band of the matrix."""
TOEPLITZ_MAX_LENGTH_HEADS = 2048
"""The same on a CPU for the outer products of :func:`causal_conv_heads`: masked scores instead of ``head_dim**2`` transforms."""

MAX_SQUARE = 128
"""The longest side of a square of scores of :func:`causal_conv_heads`, in positions."""

_LEAST_BLOCK = 16  # positions; 32 takes as long, 64 longer
_BLOCK_BYTES_A_CORE = 2**21  # about a second-level cache; twice or half of it costs 5 to 10 %
_BLOCK_BYTES_ELSEWHERE = 2**31


def fft_length(length: int) -> int:
    """The least even 5-smooth number of points that holds a linear convolution of two signals of ``length``."""
    n = max(2, 2 * length - 1)
    while n % 2 or not _is_5_smooth(n):
        n += 1
    return n


def _is_5_smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def transform_flops(points: int) -> int:
    """Floating-point operations of a real Fourier transform."""
    return round(2.5 * points * math.log2(points))


def conv_flops(channels: int, length: int, taps: int) -> int:
    """Floating-point operations of :func:`convolve` for one sequence."""
    if taps <= BAND_MAX_TAPS and taps < length:
        block = max(_LEAST_BLOCK, taps)
        return 2 * -(-length // block) * block * (block + taps - 1) * channels
    if length <= TOEPLITZ_MAX_LENGTH:
        return 2 * length**2 * channels
    return 3 * channels * transform_flops(fft_length(length))  # of the signal, of the kernel, and back


def conv_heads_flops(dim: int, heads: int, length: int) -> int:
    """Floating-point operations of :func:`causal_conv_heads` for one sequence, ``dim`` channels in ``heads`` heads."""
    if length <= TOEPLITZ_MAX_LENGTH_HEADS:
        side, count = _sides(length)
        return 2 * side**2 * count * (count + 1) * dim
    return dim // heads * conv_flops(dim, length, length)


def _sides(length: int) -> tuple[int, int]:
    """Positions along a side of the squares of scores of :func:`causal_conv_heads`, and how many cover the length."""
    count = -(-length // MAX_SQUARE)
    return -(-length // count), count


def toeplitz(h_cl: Tensor) -> Tensor:
    """Matrices (C, L, L) with ``[c, s, t] = h[c, t - s]``, zero for ``t < s``: ``x_l @ matrix`` is the causal convolution."""
    length = h_cl.shape[-1]
    return F.pad(h_cl, (length - 1, 0)).unfold(-1, length, 1).flip(-2)


def sum_diagonals(grad_cll: Tensor) -> Tensor:
    """The adjoint of :func:`toeplitz`: (C, L, L) to the sums (C, L) over ``t - s = 0 ... L - 1``."""
    length = grad_cll.shape[-1]
    # Rows of twice the length, the second half zero: read with a stride of one more, diagonals are columns.
    rows = F.pad(grad_cll, (0, length))
    return rows.as_strided(grad_cll.shape, (rows.stride(0), rows.stride(1) + 1, 1)).sum(-2)


def band(h_ck: Tensor, block: int) -> Tensor:
    """Matrices (C, K - 1 + block, block) with ``[c, s, t] = h[c, K - 1 + t - s]``: from a block and K - 1 before to the block."""
    width = h_ck.shape[-1] + block
    rows = F.pad(h_ck.flip(-1), (0, block))[:, None].expand(-1, block, -1).flatten(1)
    # Rows one shorter than they were: each starts one step further right.
    return rows[:, : block * (width - 1)].view(-1, block, width - 1).mT


def sum_band(grad_csb: Tensor, taps: int) -> Tensor:
    """The adjoint of :func:`band`: (C, K - 1 + block, block) to the sums (C, K) over each diagonal of the band."""
    block = grad_csb.shape[-1]
    skewed = F.pad(grad_csb.mT.flatten(1), (0, block)).view(-1, block, taps + block)
    return skewed[..., :taps].sum(1).flip(-1)


Adjoint = Callable[[Tensor], tuple[Tensor, Tensor]]


def convolve(x_cbl: Tensor, h_ck: Tensor) -> tuple[Tensor, Adjoint]:
    """Depthwise causal convolution and its adjoint: what autograd functions are made of.

    Up to :data:`TOEPLITZ_MAX_LENGTH` a product with Toeplitz matrices, in which the past does not depend on the
    future to the last bit; beyond it by Fourier transforms. Kernels of up to :data:`BAND_MAX_TAPS` taps multiply
    blocks of any length of sequence, each with the end of the one before, which is as causal as the former.

    Args:
        x_cbl: signals (C, B, L).
        h_ck: one kernel a channel, of at most as many taps as there are positions (C, K).

    Returns:
        ``y[c, b, t] = sum_(t - K < s <= t) h[c, t - s] x[c, b, s]``, and the function from the gradient of ``y`` to
        those of ``x`` and ``h``.
    """
    length, taps = x_cbl.shape[-1], h_ck.shape[-1]
    if taps <= BAND_MAX_TAPS and taps < length:
        return _convolve_by_blocks(x_cbl, h_ck)
    return (_convolve_by_matrix if length <= TOEPLITZ_MAX_LENGTH else _convolve_by_transform)(x_cbl, h_ck)


def _convolve_by_matrix(x_cbl: Tensor, h_ck: Tensor) -> tuple[Tensor, Adjoint]:
    taps = h_ck.shape[-1]
    matrix_cst = toeplitz(F.pad(h_ck, (0, x_cbl.shape[-1] - taps)))

    def adjoint(dy_cbl: Tensor) -> tuple[Tensor, Tensor]:
        return torch.bmm(dy_cbl, matrix_cst.mT), sum_diagonals(torch.bmm(x_cbl.mT, dy_cbl))[:, :taps]

    return torch.bmm(x_cbl, matrix_cst), adjoint


def _convolve_by_blocks(x_cbl: Tensor, h_ck: Tensor) -> tuple[Tensor, Adjoint]:
    channels, batch, length = x_cbl.shape
    past = h_ck.shape[-1] - 1
    block = max(_LEAST_BLOCK, past + 1)
    fill = -length % block
    windows = F.pad(x_cbl, (past, fill)).unfold(-1, past + block, block).reshape(channels, -1, past + block)
    matrix_csb = band(h_ck, block)

    def adjoint(dy_cbl: Tensor) -> tuple[Tensor, Tensor]:
        dy_cmb = F.pad(dy_cbl, (0, fill)).view(channels, -1, block)
        dwindows = torch.bmm(dy_cmb, matrix_csb.mT).view(channels, batch, -1, past + block)
        dx = dwindows[..., past:]
        dx[:, :, :-1, block - past :] += dwindows[:, :, 1:, :past]
        return dx.reshape(channels, batch, -1)[..., :length], sum_band(torch.bmm(windows.mT, dy_cmb), past + 1)

    return torch.bmm(windows, matrix_csb).view(channels, batch, -1)[..., :length], adjoint


def _convolve_by_transform(x_cbl: Tensor, h_ck: Tensor) -> tuple[Tensor, Adjoint]:
    length, taps = x_cbl.shape[-1], h_ck.shape[-1]
    n = fft_length(length)
    x_cbf, h_cf = torch.fft.rfft(x_cbl, n), torch.fft.rfft(h_ck, n)

    def adjoint(dy_cbl: Tensor) -> tuple[Tensor, Tensor]:
        dy_cbf = torch.fft.rfft(dy_cbl, n)
        # on a GPU the former is a product of matrices of one element for each frequency
        dh_cf = torch.einsum("cbf,cbf->cf", x_cbf.conj(), dy_cbf) if x_cbl.is_cpu else (x_cbf.conj() * dy_cbf).sum(1)
        dx_cbf = dy_cbf.mul_(h_cf.conj()[:, None])
        return torch.fft.irfft(dx_cbf, n)[..., :length], torch.fft.irfft(dh_cf, n)[..., :taps]

    return torch.fft.irfft(x_cbf * h_cf[:, None], n)[..., :length], adjoint


def causal_conv(x_cbl: Tensor, h_ck: Tensor) -> Tensor:
    """:func:`convolve`, differentiable and some channels at a time; in at least float32, (C, B, L) of the signals' dtype."""
    with no_autocast(x_cbl):
        y_cbl = apply(_CausalConv, at_least_float32(x_cbl), at_least_float32(h_ck))
    return y_cbl.to(x_cbl.dtype)


def causal_conv_step(x_bc: Tensor, past_bkc: Tensor, h_ck: Tensor) -> tuple[Tensor, Tensor]:
    """One value a kernel, (B, C, ...), after the last K - 1 (B, K - 1, C, ...), through (C, K): output and new last values."""
    window_bkc = torch.cat([past_bkc, x_bc[:, None]], dim=1)
    return torch.einsum("bkc...,ck->bc...", window_bkc, h_ck.flip(-1)), window_bkc[:, 1:]


def causal_conv_heads(q_hdbl: Tensor, k_hdbl: Tensor, v_hebl: Tensor, h_hl: Tensor) -> Tensor:
    """Causal convolution of the outer products of keys and values, read out by queries.

    ``y[e, t] = sum_d q[d, t] sum_(s <= t) h[t - s] k[d, s] v[e, s]`` for every head and sequence. The
    sums can be exchanged: ``sum_s h[t - s] (q_t . k_s) v[e, s]`` is attention without softmax under a
    Toeplitz mask.

    Args:
        q_hdbl, k_hdbl, v_hebl: (heads, head dim, B, L).
        h_hl: one kernel a head (heads, L).

    Returns:
        (heads, head dim, B, L) in the dtype of the values, computed in at least float32.
    """
    longest = TOEPLITZ_MAX_LENGTH_HEADS if q_hdbl.is_cpu else 4 * MAX_SQUARE  # elsewhere scores do not stay in cache
    form = _masked_heads if q_hdbl.shape[-1] <= longest else _transformed_heads
    with no_autocast(q_hdbl):
        y_hebl = form(*(at_least_float32(x) for x in (q_hdbl, k_hdbl, v_hebl, h_hl)))
    return y_hebl.to(v_hebl.dtype)


def _masked_heads(q_hdbl: Tensor, k_hdbl: Tensor, v_hebl: Tensor, h_hl: Tensor) -> Tensor:
    heads, _, batch, length = q_hdbl.shape
    side, count = _sides(length)

    def cut(x_hdbl: Tensor) -> Tensor:
        padded = x_hdbl if length == count * side else F.pad(x_hdbl, (0, count * side - length))
        return padded.reshape(heads, -1, batch, count, side).permute(0, 3, 2, 1, 4).flatten(1, 2)

    windows = F.pad(h_hl, (side - 1, count * side - length)).unfold(-1, 2 * side - 1, side)
    masks = windows.unfold(-1, side, 1).flip(-2)
    y = apply(_ToeplitzAttention, cut(q_hdbl), cut(k_hdbl), cut(v_hebl), masks)
    return y.reshape(heads, count, batch, -1, side).permute(0, 3, 2, 1, 4).flatten(3)[..., :length]


def _transformed_heads(q_hdbl: Tensor, k_hdbl: Tensor, v_hebl: Tensor, h_hl: Tensor) -> Tensor:
    h_cl = h_hl.repeat_interleave(v_hebl.shape[1], 0)
    y_hebl = torch.zeros_like(v_hebl)
    for q_hbl, k_hbl in zip(q_hdbl.unbind(1), k_hdbl.unbind(1), strict=True):
        kv_hebl = k_hbl[:, None] * v_hebl
        filtered_cbl = causal_conv(kv_hebl.flatten(0, 1), h_cl)
        y_hebl = y_hebl + q_hbl[:, None] * filtered_cbl.view_as(kv_hebl)
    return y_hebl


def blocks(count: int, scalars_each: int, like: Tensor) -> Iterator[slice]:
    """Slices of ``count`` items of ``scalars_each`` scalars; on a CPU they fit the cores' second-level caches."""
    room = _BLOCK_BYTES_A_CORE * torch.get_num_threads() if like.is_cpu else _BLOCK_BYTES_ELSEWHERE
    size = max(1, room // (scalars_each * like.element_size()))
    return (slice(start, start + size) for start in range(0, count, size))


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_cbl: Tensor, h_ck: Tensor) -> Tensor:
        ctx.save_for_backward(x_cbl, h_ck)
        y_cbl = torch.empty(x_cbl.shape, dtype=x_cbl.dtype, device=x_cbl.device)
        for c in blocks(len(x_cbl), 2 * x_cbl[0].numel(), x_cbl):
            y_cbl[c] = convolve(x_cbl[c].contiguous(), h_ck[c])[0]
        return y_cbl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_cbl: Tensor) -> tuple[Tensor, Tensor]:
        x_cbl, h_ck = ctx.saved_tensors
        dx_cbl = torch.empty(x_cbl.shape, dtype=x_cbl.dtype, device=x_cbl.device)
        dh_ck = torch.empty_like(h_ck)
        for c in blocks(len(x_cbl), 2 * x_cbl[0].numel(), x_cbl):
            _, adjoint = convolve(x_cbl[c].contiguous(), h_ck[c])
            dx_cbl[c], dh_ck[c] = adjoint(dy_cbl[c].contiguous())
        return dx_cbl, dh_ck


class _ToeplitzAttention(torch.autograd.Function):
    """Squares of scores are never stored: some of a head are in cache at a time, and again in the backward pass.

    Squares at the same distance from the diagonal share a mask; none of the future is computed. Queries, keys and values
    are (heads, stretches * B, width, side), masks (heads, stretches, side, side).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, masks: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v, masks)
        y = torch.empty_like(v)
        for head, distance, write, read in _squares(q, masks, 1):
            scores = torch.bmm(k[head, write].mT, q[head, read]).mul_(masks[head, distance])
            y[head, read].baddbmm_(v[head, write], scores, beta=min(distance, 1))  # the first squares set all
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        q, k, v, masks = ctx.saved_tensors
        dq, dk, dv, dmasks = *(torch.empty_like(x) for x in (q, k, v)), torch.zeros_like(masks)
        with no_autocast(q):
            for head, distance, write, read in _squares(q, masks, 2):
                beta = min(distance, 1)
                scores = torch.bmm(k[head, write].mT, q[head, read])
                dmasked = torch.bmm(v[head, write].mT, dy[head, read])
                dmasks[head, distance] += (scores * dmasked).sum(0)
                dv[head, write].baddbmm_(dy[head, read], scores.mul_(masks[head, distance]).mT, beta=beta)
                dscores = dmasked.mul_(masks[head, distance])
                dq[head, read].baddbmm_(k[head, write], dscores, beta=beta)
                dk[head, write].baddbmm_(q[head, read], dscores.mT, beta=beta)
        return dq, dk, dv, dmasks


def _squares(q: Tensor, masks: Tensor, kept: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Head, distance from the diagonal, and the stretches written and read, of as many squares as keep ``kept`` in cache."""
    heads, count, side, _ = masks.shape
    batch = q.shape[1] // count
    for head in range(heads):
        for distance in range(count):
            for some in blocks((count - distance) * batch, kept * side * side, q):
                stop = min(some.stop, (count - distance) * batch)
                yield head, distance, slice(some.start, stop), slice(some.start + distance * batch, stop + distance * batch)
