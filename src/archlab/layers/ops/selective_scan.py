"""The selective scan of Mamba, in tiles that stay in cache."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply
from archlab.layers.ops.scan import accumulate

TILE_STATES = 1 << 18
"""States of a tile on a CPU, all its positions, sequences, channels together: a few tiles fit a core's cache."""
TILE_LENGTH = 8
"""Positions of a tile on a CPU."""
_TILE_STATES_ELSEWHERE = 1 << 28
"""The same on a GPU, where a tile takes as many kernels however long it is."""
_LOG2_E = math.log2(math.e)
"""Powers of two cost a third of powers of e on a CPU."""


class _SelectiveScan(torch.autograd.Function):
    """States are kept only where tiles begin and computed again in the backward pass.

    That moves less memory than keeping them. All tensors are time-major: (L, B, ...).
    """

    @staticmethod
    def forward(ctx: Any, x_lbc: Tensor, dt_lbc: Tensor, a_nc: Tensor, b_lbn: Tensor, c_lbn: Tensor, d_c: Tensor) -> Tensor:
        batch = x_lbc.shape[1]
        y_lbc = torch.empty_like(x_lbc)
        starts = x_lbc.new_empty(len(list(_spans(x_lbc, a_nc))), batch, *a_nc.shape)
        for some in _batches(x_lbc, a_nc):
            state = x_lbc.new_zeros(some.stop - some.start, *a_nc.shape)
            for tile, span in enumerate(_spans(x_lbc, a_nc)):
                starts[tile, some] = state
                part = span, some
                x = x_lbc[part]
                states, _ = _tile(state, dt_lbc[part] * x, dt_lbc[part], a_nc, b_lbn[part])
                torch.addcmul(torch.matmul(c_lbn[part][:, :, None], states)[:, :, 0], d_c, x, out=y_lbc[part])
                state = states[-1]
        ctx.save_for_backward(x_lbc, dt_lbc, a_nc, b_lbn, c_lbn, d_c, starts)
        return y_lbc

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (dy_lbc,) = grads
        x_lbc, dt_lbc, a_nc, b_lbn, c_lbn, d_c, starts = ctx.saved_tensors
        dx, ddt, da, db, dc, dd = (torch.empty_like(t) for t in (x_lbc, dt_lbc, a_nc, b_lbn, c_lbn, d_c))
        da.zero_()
        dd.zero_()
        for some in _batches(x_lbc, a_nc):
            carried = torch.zeros_like(starts[0, some])
            for tile, span in reversed(list(enumerate(_spans(x_lbc, a_nc)))):
                part = span, some
                x, dt, dy, b = x_lbc[part], dt_lbc[part], dy_lbc[part], b_lbn[part]
                inputs = dt * x
                states, decay = _tile(starts[tile, some], inputs, dt, a_nc, b)
                dstates = dy[:, :, None] * c_lbn[part][..., None]
                dstates[-1] += carried
                accumulate(decay[1:], dstates, backwards=True)
                dc[part] = torch.matmul(dy[:, :, None], states.mT)[:, :, 0]
                db[part] = torch.matmul(inputs[:, :, None], dstates.mT)[:, :, 0]
                dinputs = torch.matmul(b[:, :, None], dstates)[:, :, 0]
                dlog = decay.mul_(dstates)
                carried = dlog[0].clone()
                dlog[1:] *= states[:-1]
                dlog[0] *= starts[tile, some]
                torch.mul(dinputs, dt, out=dx[part]).addcmul_(d_c, dy)
                ddt_part = torch.mul(dinputs, x, out=ddt[part])
                for rate, along in zip(a_nc.unbind(0), dlog.unbind(2), strict=True):
                    ddt_part.addcmul_(rate, along)
                da += dlog.mul_(dt[:, :, None]).sum((0, 1))
                dd += (x * dy).sum((0, 1))
        return dx, ddt, da, db, dc, dd


def _batches(x_lbc: Tensor, a_nc: Tensor) -> Iterator[slice]:
    """Sequences that are scanned together: on a CPU as many as keep a tile in cache, else all."""
    batch = x_lbc.shape[1]
    together = max(1, TILE_STATES // (TILE_LENGTH * a_nc.numel())) if x_lbc.is_cpu else batch
    return (slice(start, min(start + together, batch)) for start in range(0, batch, together))


def _spans(x_lbc: Tensor, a_nc: Tensor) -> Iterator[slice]:
    """Positions of each tile."""
    length, batch, _ = x_lbc.shape
    together = TILE_LENGTH if x_lbc.is_cpu else max(TILE_LENGTH, _TILE_STATES_ELSEWHERE // (batch * a_nc.numel()))
    return (slice(start, min(start + together, length)) for start in range(0, length, together))


def _tile(start: Tensor, inputs: Tensor, dt: Tensor, a_nc: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """States and decays (T, B, N, C) of a tile that begins in the state ``start`` (B, N, C), its ``inputs`` scaled by ``dt``."""
    decay = (dt[:, :, None] * (_LOG2_E * a_nc)).exp2_()
    states = inputs[:, :, None] * b[..., None]
    states[0].addcmul_(decay[0], start)
    accumulate(decay[1:], states)
    return states, decay


def selective_scan(x_lbc: Tensor, dt_lbc: Tensor, a_nc: Tensor, b_lbn: Tensor, c_lbn: Tensor, d_c: Tensor) -> Tensor:
    """``y[t] = C[t] h[t] + D x[t]``, ``h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t]`` (arXiv 2312.00752, algorithm 2), (L, B, C).

    Time comes first; inputs ``x`` have any strides, step sizes ``dt`` are positive, the rates ``A`` negative.
    """
    return apply(_SelectiveScan, x_lbc, dt_lbc, a_nc, b_lbn, c_lbn, d_c)
