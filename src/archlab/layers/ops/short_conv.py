"""Depthwise causal convolution with a kernel of a few taps."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from archlab.layers.ops.members import apply


class _ShiftedMultiplyAdd(torch.autograd.Function):
    """One in-place multiply-add per tap; half the time of ``conv1d``, which also wants (B, C, L)."""

    @staticmethod
    def forward(ctx: Any, x_blc: Tensor, taps_kc: Tensor, bias_c: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_blc, taps_kc)
        ctx.has_bias = bias_c is not None
        length = x_blc.shape[1]
        y_blc = x_blc * taps_kc[0] if bias_c is None else torch.addcmul(bias_c, x_blc, taps_kc[0])
        for lag in range(1, min(len(taps_kc), length)):
            y_blc[:, lag:].addcmul_(x_blc[:, : length - lag], taps_kc[lag])
        return y_blc

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        (dy_blc,) = grads
        x_blc, taps_kc = ctx.saved_tensors  # type: ignore[attr-defined]
        length = x_blc.shape[1]
        dx_blc = dy_blc * taps_kc[0]
        dtaps_kc = torch.zeros_like(taps_kc)
        dtaps_kc[0] = (dy_blc * x_blc).sum((0, 1))
        for lag in range(1, min(len(taps_kc), length)):
            dx_blc[:, : length - lag].addcmul_(dy_blc[:, lag:], taps_kc[lag])
            dtaps_kc[lag] = (dy_blc[:, lag:] * x_blc[:, : length - lag]).sum((0, 1))
        return dx_blc, dtaps_kc, dy_blc.sum((0, 1)) if ctx.has_bias else None  # type: ignore[attr-defined]


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
