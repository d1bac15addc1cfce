"""Depthwise causal convolution with a kernel of a few taps."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import at_least_float32

_PIECE = 1 << 18
"""Entries that are convolved together on a CPU: what is read and written for them stays in a core's cache from tap to tap."""


class _ShiftedMultiplyAdd(torch.autograd.Function):
    """One in-place multiply-add per tap; half the time of ``conv1d``, which also wants (B, C, L)."""

    @staticmethod
    def forward(ctx: Any, x_blc: Tensor, taps_kc: Tensor, bias_c: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_blc, taps_kc)
        ctx.has_bias = bias_c is not None
        y_blc = torch.empty_like(x_blc)
        for some, start, stop in _pieces(x_blc):
            x, y = x_blc[some], y_blc[some]
            if bias_c is None:
                torch.mul(x[:, start:stop], taps_kc[0], out=y[:, start:stop])
            else:
                torch.addcmul(bias_c, x[:, start:stop], taps_kc[0], out=y[:, start:stop])
            for lag in range(1, len(taps_kc)):
                first = min(max(start, lag), stop)
                y[:, first:stop].addcmul_(x[:, first - lag : stop - lag], taps_kc[lag])
        return y_blc

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        (dy_blc,) = grads
        x_blc, taps_kc = ctx.saved_tensors  # type: ignore[attr-defined]
        length = x_blc.shape[1]
        dx_blc = torch.empty_like(x_blc)
        if dy_blc.stride() != dx_blc.stride():
            dy_blc = torch.empty_like(dx_blc).copy_(dy_blc)  # once, not once a tap
        pieces = list(_pieces(x_blc))
        some, _, most = pieces[0]
        dtaps_kblc = at_least_float32(taps_kc).new_zeros(len(taps_kc), *x_blc[some, :most].shape)
        for some, start, stop in pieces:
            x, dy, dx = x_blc[some], dy_blc[some], dx_blc[some]
            torch.mul(dy[:, start:stop], taps_kc[0], out=dx[:, start:stop])
            for lag in range(len(taps_kc)):
                last = max(start, min(stop, length - lag))
                later = dy[:, start + lag : last + lag]
                if lag:
                    dx[:, start:last].addcmul_(later, taps_kc[lag])
                dtaps_kblc[lag, : len(x), : last - start].addcmul_(later, x[:, start:last])
        dtaps_kc = dtaps_kblc.sum((1, 2)).to(taps_kc.dtype)
        return dx_blc, dtaps_kc, dy_blc.sum((0, 1)) if ctx.has_bias else None  # type: ignore[attr-defined]


def _pieces(x_blc: Tensor) -> Iterator[tuple[slice, int, int]]:
    """Sequences and the span of positions of each piece, the first the largest; one piece elsewhere than on a CPU."""
    batch, length, channels = x_blc.shape
    if not x_blc.is_cpu or torch.compiler.is_compiling():
        yield slice(batch), 0, length
        return
    together = batch if x_blc.stride(0) < x_blc.stride(1) else min(batch, max(1, _PIECE // (length * channels)))
    span = max(1, _PIECE // (together * channels))
    for first in range(0, batch, together):
        for start in range(0, length, span):
            yield slice(first, first + together), start, min(start + span, length)


class ShortConv(nn.Module):
    """Depthwise causal convolution: ``y[t, c] = bias[c] + sum_j weight[c, 0, j] x[t - (K - 1) + j, c]``.

    Parameters have the shapes and the initialisation of a depthwise ``nn.Conv1d``: ``weight`` (C, 1, K),
    ``bias`` (C). Any memory layout of the input is taken as it is, the output has the same.
    """

    def __init__(self, channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        bound = 1 / math.sqrt(kernel_size)
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def _taps(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """The taps (K, C), the tap on the current token first, and the bias."""
        taps_kc = self.weight[:, 0].flip(-1).t().contiguous().to(dtype)
        return taps_kc, None if self.bias is None else self.bias.to(dtype)

    def forward(self, x_blc: Tensor, skip: Tensor | float | None = None) -> Tensor:
        """Convolve along the length: (B, L, C) to (B, L, C), plus ``skip * x`` if given."""
        taps_kc, bias_c = self._taps(x_blc.dtype)
        if skip is not None:
            taps_kc = torch.cat([taps_kc[:1] + skip, taps_kc[1:]]).to(x_blc.dtype)
        return apply(_ShiftedMultiplyAdd, x_blc, taps_kc, bias_c)

    def init_state(self, batch_size: int) -> Tensor:
        """The K - 1 inputs before the first token, all zero: (B, K - 1, C)."""
        return self.weight.new_zeros(batch_size, self.kernel_size - 1, self.channels)

    def step(self, x_bc: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token (B, C) after the last K - 1 inputs (B, K - 1, C): the output (B, C) and the new last inputs."""
        window_bkc = torch.cat([state, x_bc[:, None]], dim=1)
        y_bc = (window_bkc * self.weight[:, 0].t()).sum(1)
        return (y_bc if self.bias is None else y_bc + self.bias), window_bkc[:, 1:]
