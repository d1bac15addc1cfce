"""Hyena's projections and gates around its long convolution, without a stored intermediate.

The projections of a Hyena operator are tied: ``P`` channels are repeated ``G`` times and only then convolved with a
few taps each. A short convolution of tied channels is a product: the taps of the ``G`` copies of a channel, (G, 1 + K),
times a constant and the channel's last ``K`` values at every position, (1 + K, B L). That is one pass over memory
where the sum over taps makes ``K``, and the same holds for its gradients.

Tensors are channel-major, ``(channels, batch, length)``, and walked in blocks of channels that stay in cache.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from archlab.layers.ops.long_conv import blocks, convolve
from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import at_least_float32, no_autocast


def tied_short_conv(u_pbl: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Short causal convolution of ``G`` copies of ``P`` channels.

    ``weight`` (G P, 1, K) and ``bias`` (G P) are those of a depthwise convolution; (G P, B, L) has the dtype of ``u_pbl``.
    """
    with no_autocast(u_pbl):
        return apply(_TiedShortConv, u_pbl, _taps(weight, bias, len(u_pbl)).to(u_pbl.dtype))


def gated_long_conv(u_pbl: Tensor, weight: Tensor, bias: Tensor, h_cl: Tensor) -> Tensor:
    """``x0 * conv(h, x1 * v)``, where ``(x0, x1, v)`` are the thirds of :func:`tied_short_conv`.

    ``G P = 3 C``; ``h_cl`` are the long kernels, (C, L) or of fewer taps. (C, B, L) has the dtype of ``u_pbl`` and is computed
    in at least float32.
    """
    with no_autocast(u_pbl):
        taps = at_least_float32(_taps(weight, bias, len(u_pbl)))
        y_cbl = apply(_GatedLongConv, at_least_float32(u_pbl), taps, at_least_float32(h_cl))
    return y_cbl.to(u_pbl.dtype)


def _taps(weight: Tensor, bias: Tensor, channels: int) -> Tensor:
    """(P, G, 1 + K): for every channel and copy the bias, then the taps from the current position backwards."""
    return torch.cat([bias[:, None], weight[:, 0].flip(-1)], dim=1).view(-1, channels, 1 + weight.shape[-1]).transpose(0, 1)


def _lagged(u_pbl: Tensor, num_taps: int) -> Tensor:
    """(P, 1 + K, B L): a row of ones, then the channel delayed by 0 ... K - 1 positions."""
    channels, batch, length = u_pbl.shape
    rows = torch.empty(channels, num_taps, batch, length, dtype=u_pbl.dtype, device=u_pbl.device)
    rows[:, 0] = 1
    for lag in range(num_taps - 1):
        rows[:, 1 + lag, :, :lag] = 0
        rows[:, 1 + lag, :, lag:] = u_pbl[..., : max(length - lag, 0)]
    return rows.flatten(2)


def _lagged_adjoint(drows: Tensor, batch: int) -> Tensor:
    """The adjoint of :func:`_lagged`: (P, 1 + K, B L) to (P, B, L)."""
    drows = drows.view(*drows.shape[:2], batch, -1)
    length = drows.shape[-1]
    du_pbl = drows[:, 1]
    for lag in range(1, min(drows.shape[1] - 1, length)):
        du_pbl[..., : length - lag] += drows[:, 1 + lag, :, lag:]
    return du_pbl


class _TiedShortConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_pbl: Tensor, taps_pgk: Tensor) -> Tensor:
        ctx.save_for_backward(u_pbl, taps_pgk)
        channels, groups, num_taps = taps_pgk.shape
        y_gpbl = torch.empty(groups, *u_pbl.shape, dtype=u_pbl.dtype, device=u_pbl.device)
        for p in blocks(channels, (groups + num_taps) * u_pbl[0].numel(), u_pbl):
            y_gpbl[:, p] = torch.bmm(taps_pgk[p], _lagged(u_pbl[p], num_taps)).view(-1, groups, *u_pbl.shape[1:]).transpose(0, 1)
        return y_gpbl.flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_cbl: Tensor) -> tuple[Tensor, Tensor]:
        u_pbl, taps_pgk = ctx.saved_tensors
        channels, groups, num_taps = taps_pgk.shape
        dy_gpbl = dy_cbl.reshape(groups, *u_pbl.shape)
        du_pbl, dtaps_pgk = torch.empty_like(u_pbl), torch.empty_like(taps_pgk)
        for p in blocks(channels, (groups + 2 * num_taps) * u_pbl[0].numel(), u_pbl):
            dy = dy_gpbl[:, p].transpose(0, 1).flatten(2)
            dtaps_pgk[p] = torch.bmm(dy, _lagged(u_pbl[p], num_taps).mT)
            du_pbl[p] = _lagged_adjoint(torch.bmm(taps_pgk[p].mT, dy), u_pbl.shape[1])
        return du_pbl, dtaps_pgk


class _Block:
    """One block of :func:`gated_long_conv`, forward: the copies of a few channels, in their three roles.

    ``Q``, the greatest common divisor of ``P`` and ``C``, is the period of the tying: channel ``q`` of each of the
    ``P / Q`` parts of ``u`` meets no other than channel ``q`` of each of the ``C / Q`` parts of the roles. A block is a
    range of ``q``.
    """

    def __init__(self, u_uqbl: Tensor, taps_uqgk: Tensor, h_iql: Tensor, q: slice) -> None:
        self.parts = len(h_iql)
        self.taps = taps_uqgk[:, q].flatten(0, 1)
        self.lagged = _lagged(u_uqbl[:, q].flatten(0, 1), taps_uqgk.shape[-1])
        copies = torch.bmm(self.taps, self.lagged)
        self.shape = (len(u_uqbl), -1, taps_uqgk.shape[2], *u_uqbl.shape[2:])
        self.x0, self.x1, self.v = self.roles(copies)
        signal = torch.stack([x1 * v for x1, v in zip(self.x1, self.v, strict=True)])
        filtered, self.adjoint = convolve(signal.flatten(0, 1), h_iql[:, q].flatten(0, 1))
        self.filtered = filtered.view(signal.shape)

    def roles(self, copies: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The parts (q, B, L) of the three roles, in order, as views of the copies."""
        copies_uqgbl = copies.view(self.shape)
        parts = [part for group_uqbl in copies_uqgbl.unbind(2) for part in group_uqbl]
        return parts[: self.parts], parts[self.parts : 2 * self.parts], parts[2 * self.parts :]


class _GatedLongConv(torch.autograd.Function):
    """The backward pass computes every block again: what it needs is in cache then, and nothing but the inputs is kept."""

    @staticmethod
    def forward(ctx: Any, u_pbl: Tensor, taps_pgk: Tensor, h_cl: Tensor) -> Tensor:
        ctx.save_for_backward(u_pbl, taps_pgk, h_cl)
        u_uqbl, taps_uqgk, h_iql = _periods(u_pbl, taps_pgk, h_cl)
        y_iqbl = torch.empty(*h_iql.shape[:2], *u_pbl.shape[1:], dtype=u_pbl.dtype, device=u_pbl.device)
        for q in _period_blocks(u_uqbl, h_iql):
            block = _Block(u_uqbl, taps_uqgk, h_iql, q)
            for y_qbl, x0_qbl, filtered_qbl in zip(y_iqbl[:, q], block.x0, block.filtered, strict=True):
                torch.mul(x0_qbl, filtered_qbl, out=y_qbl)
        return y_iqbl.flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_cbl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u_pbl, taps_pgk, h_cl = ctx.saved_tensors
        du_pbl, dtaps_pgk, dh_cl = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (u_pbl, taps_pgk, h_cl))
        u_uqbl, taps_uqgk, h_iql = _periods(u_pbl, taps_pgk, h_cl)
        du_uqbl, dtaps_uqgk, dh_iql = _periods(du_pbl, dtaps_pgk, dh_cl)
        dy_iqbl = dy_cbl.reshape(*h_iql.shape[:2], *u_pbl.shape[1:])
        for q in _period_blocks(u_uqbl, h_iql):
            block = _Block(u_uqbl, taps_uqgk, h_iql, q)
            dy = dy_iqbl[:, q]
            dfiltered = torch.stack([g * x0 for g, x0 in zip(dy, block.x0, strict=True)])
            dsignal, dh = block.adjoint(dfiltered.flatten(0, 1))
            dh_iql[:, q] = dh.view(dh_iql[:, q].shape)
            dcopies = torch.empty(
                len(block.taps), block.taps.shape[1], block.lagged.shape[-1], dtype=u_pbl.dtype, device=u_pbl.device
            )
            dx0, dx1, dv = block.roles(dcopies)
            for i, g in enumerate(dsignal.view(dfiltered.shape)):
                torch.mul(dy[i], block.filtered[i], out=dx0[i])
                torch.mul(g, block.v[i], out=dx1[i])
                torch.mul(g, block.x1[i], out=dv[i])
            dtaps_uqgk[:, q] = torch.bmm(dcopies, block.lagged.mT).view(dtaps_uqgk[:, q].shape)
            du = _lagged_adjoint(torch.bmm(block.taps.mT, dcopies), u_pbl.shape[1])
            du_uqbl[:, q] = du.view(du_uqbl[:, q].shape)
        return du_pbl, dtaps_pgk, dh_cl


def _periods(u_pbl: Tensor, taps_pgk: Tensor, h_cl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views whose leading axis is cut into periods: (U, Q, B, L), (U, Q, G, 1 + K) and (I, Q, L)."""
    period = math.gcd(len(u_pbl), len(h_cl))
    u_uqbl, taps_uqgk, h_iql = (x.view(-1, period, *x.shape[1:]) for x in (u_pbl, taps_pgk, h_cl))
    return u_uqbl, taps_uqgk, h_iql


def _period_blocks(u_uqbl: Tensor, h_iql: Tensor) -> Iterator[slice]:
    return blocks(h_iql.shape[1], 3 * len(h_iql) * u_uqbl[0, 0].numel(), u_uqbl)
