"""The selective scan of Mamba, in tiles that stay in cache."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply

TILE_STATES = 1 << 17
"""States of a tile on a CPU, all its positions, sequences, channels together: a few tiles fit a core's cache."""
TILE_LENGTH = 8
"""Positions of a tile."""


class _SelectiveScan(torch.autograd.Function):
    """States are kept only where tiles begin and computed again in the backward pass.

    That moves less memory than keeping them. All tensors are time-major: (L, B, ...).
    """

    @staticmethod
    def forward(ctx: Any, x_lbc: Tensor, dt_lbc: Tensor, a_nc: Tensor, b_lbn: Tensor, c_lbn: Tensor) -> Tensor:
        length, batch, _ = x_lbc.shape
        y_lbc = torch.empty_like(x_lbc)
        starts = x_lbc.new_empty(-(-length // TILE_LENGTH), batch, *a_nc.shape)
        for some in _batches(x_lbc, a_nc):
            state = x_lbc.new_zeros(some.stop - some.start, *a_nc.shape)
            for tile, span in enumerate(_spans(length)):
                starts[tile, some] = state
                part = span, some
                states, _ = _tile(state, x_lbc[part], dt_lbc[part], a_nc, b_lbn[part])
                y_lbc[part] = torch.matmul(c_lbn[part][:, :, None], states)[:, :, 0]
                state = states[-1]
        ctx.save_for_backward(x_lbc, dt_lbc, a_nc, b_lbn, c_lbn, starts)
        return y_lbc

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (dy_lbc,) = grads
        x_lbc, dt_lbc, a_nc, b_lbn, c_lbn, starts = ctx.saved_tensors
        dx, ddt, da, db, dc = (torch.empty_like(t) for t in (x_lbc, dt_lbc, a_nc, b_lbn, c_lbn))
        da.zero_()
        for some in _batches(x_lbc, a_nc):
            carried = torch.zeros_like(starts[0, some])
            for tile, span in reversed(list(enumerate(_spans(len(x_lbc))))):
                part = span, some
                x, dt, dy, b = x_lbc[part], dt_lbc[part], dy_lbc[part], b_lbn[part]
                states, decay = _tile(starts[tile, some], x, dt, a_nc, b)
                dstates = dy[:, :, None] * c_lbn[part][..., None]
                dstates[-1] += carried
                for t in range(len(dstates) - 1, 0, -1):
                    dstates[t - 1].addcmul_(decay[t], dstates[t])
                dc[part] = (states * dy[:, :, None]).sum(-1)
                db[part] = (dstates * (dt * x)[:, :, None]).sum(-1)
                dinputs = torch.matmul(b[:, :, None], dstates)[:, :, 0]
                dlog = decay.mul_(dstates)
                carried = dlog[0].clone()
                dlog[1:] *= states[:-1]
                dlog[0] *= starts[tile, some]
                torch.mul(dinputs, dt, out=dx[part])
                torch.mul(dinputs, x, out=ddt[part])
                ddt[part] += (dlog * a_nc).sum(2)
                da += dlog.mul_(dt[:, :, None]).sum((0, 1))
        return dx, ddt, da, db, dc


def _batches(x_lbc: Tensor, a_nc: Tensor) -> Iterator[slice]:
    """Sequences that are scanned together: on a CPU as many as keep a tile in cache, else all."""
    batch = x_lbc.shape[1]
    together = max(1, TILE_STATES // (TILE_LENGTH * a_nc.numel())) if x_lbc.is_cpu else batch
    return (slice(start, min(start + together, batch)) for start in range(0, batch, together))


def _spans(length: int) -> Iterator[slice]:
    return (slice(start, min(start + TILE_LENGTH, length)) for start in range(0, length, TILE_LENGTH))


def _tile(start: Tensor, x: Tensor, dt: Tensor, a_nc: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """States and decays (T, B, N, C) of a tile that begins in the state ``start`` (B, N, C)."""
    decay = (dt[:, :, None] * a_nc).exp_()
    states = (dt * x)[:, :, None] * b[..., None]
    for t, state in enumerate(states):
        state.addcmul_(decay[t], states[t - 1] if t else start)
    return states, decay


def selective_scan(x_lbc: Tensor, dt_lbc: Tensor, a_nc: Tensor, b_lbn: Tensor, c_lbn: Tensor) -> Tensor:
    """``y[t] = C[t] h[t]``, (L, B, C), with ``h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t]`` (arXiv 2312.00752, algorithm 2).

    Time comes first; inputs ``x`` have any strides, step sizes ``dt`` are positive, the rates ``A`` negative.
    """
    return apply(_SelectiveScan, x_lbc, dt_lbc, a_nc, b_lbn, c_lbn)
