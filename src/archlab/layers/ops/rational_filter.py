"""The rational filter: kernels with a transfer function of finite order, which a recurrence of that order computes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.ops.long_conv import toeplitz, transform_flops
from archlab.layers.ops.precision import at_least_float32, no_autocast


class RationalFilter(nn.Module):
    """Kernels whose transfer functions are ratios of polynomials, ``sum_j b_j z^-j / (1 + sum_j a_j z^-j)``, ``j = 1 ... order``.

    Numerator and denominator are divided at ``N`` roots of unity, ``N = max(max_length, order + 1)``. That gives the
    response of the state-space model ``(A, B, C)`` in companion form wrapped around after ``N`` taps,
    ``h_t = C (1 - A^N)^-1 A^(t-1) B``, so what is trained as ``b`` are the numerators of the truncated response: its
    first ``max_length`` taps equal the infinite response of :meth:`recurrent_numerators`, which ``step`` computes.

    The paper trains the ``a_j`` themselves. Nothing keeps their poles from the unit circle, where the division fails,
    nor inside of it, without which states grow until ``step`` has no digit left. Here ``a`` follows from reflection
    coefficients in (-1, 1), hyperbolic tangents of what is trained: every denominator with all poles inside, and no
    other, has such coefficients. Near the start, where all is zero and all poles lie in the origin, the two are equal
    to first order. Parameters carry ``_no_weight_decay``.

    Source: Parnichkun et al. 2024 (arXiv 2405.06147).
    """

    def __init__(self, filters: int, max_length: int, order: int) -> None:
        super().__init__()
        self.points = max(max_length, order + 1)
        self.numerator = nn.Parameter(torch.zeros(filters, order))
        self.reflection = nn.Parameter(torch.zeros(filters, order))
        for parameter in self.parameters():
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps of every kernel, (filters, length), the first of them zero; in full precision."""
        return F.pad(self._response(self.denominators())[:, : length - 1], (1, 0))

    def denominators(self) -> Tensor:
        """(filters, 1 + order): the coefficients ``a`` with the one before them."""
        a_cn = torch.ones_like(at_least_float32(self.numerator[:, :1]))
        for reflection_c1 in torch.tanh(at_least_float32(self.reflection))[..., None].unbind(1):
            a_cn = F.pad(a_cn, (0, 1)) + reflection_c1 * F.pad(a_cn.flip(-1), (1, 0))
        return a_cn

    def recurrent_numerators(self) -> Tensor:
        """(filters, order): numerators whose infinite response begins with the taps of ``forward``."""
        order = self.numerator.shape[1]
        a_cn = self.denominators()
        with no_autocast(a_cn):
            return torch.bmm(a_cn[:, None, :order], toeplitz(self._response(a_cn)[:, :order]))[:, 0]

    def step(self, x_bc: Tensor, memory_bnc: Tensor) -> tuple[Tensor, Tensor]:
        """One value a filter, (B, filters, ...), after a memory (B, order, filters, ...): what comes out, and the new memory."""
        a_cn, b_cn = (x_cn.to(x_bc.dtype).flip(-1) for x_cn in (self.denominators()[:, 1:], self.recurrent_numerators()))
        y_bc = torch.einsum("bnc...,cn->bc...", memory_bnc, b_cn)
        newest_bc = x_bc - torch.einsum("bnc...,cn->bc...", memory_bnc, a_cn)
        return y_bc, torch.cat([memory_bnc[:, 1:], newest_bc[:, None]], dim=1)

    def _response(self, a_cn: Tensor) -> Tensor:
        """Taps 1 ... N of the wrapped response, (filters, N)."""
        with no_autocast(a_cn):
            numerator_cf = torch.fft.rfft(at_least_float32(self.numerator), self.points)
            response_cn: Tensor = torch.fft.irfft(numerator_cf / torch.fft.rfft(a_cn, self.points), self.points)
        return response_cn

    @staticmethod
    def num_params(filters: int, max_length: int, order: int) -> int:
        """Trainable scalars."""
        return 2 * order * filters

    @staticmethod
    def memory(max_length: int, order: int) -> int:
        """Scalars that ``step`` carries for each filter."""
        return order

    @staticmethod
    def flops(filters: int, max_length: int, order: int) -> int:
        """Floating-point operations to evaluate every kernel: three transforms."""
        return 3 * filters * transform_flops(max(max_length, order + 1))
