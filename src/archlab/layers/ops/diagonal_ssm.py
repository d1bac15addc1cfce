"""Time-invariant state-space models with a complex diagonal state: a kernel for whole sequences, a recurrence for tokens.

Complex numbers are pairs of real ones here: autocast, compilers and accelerators treat those alike.
"""

import math

import torch
from torch import Tensor, nn

from archlab.layers.ops.precision import no_autocast
from archlab.layers.ops.step_size import DT_MAX, DT_MIN

DECAY_RATE = 0.5
"""Where the rates, the real parts of ``-A``, start."""


class DiagonalSSM(nn.Module):
    """``h_t = exp(dt A) h_{t-1} + u_t``, ``y_t = 2 Re(C' h_t) + D u_t`` with ``C' = C (exp(dt A) - 1) / A`` for each channel.

    That is zero-order hold, with ``B = 1`` and the factor of the input moved to the read-out. States come in conjugate
    pairs of which one is kept. ``A`` starts as ``-1/2 + i pi n`` (S4D-Lin), ``C`` complex normal, ``D`` normal, step sizes
    log-uniform in [0.001, 0.1]. Rates, frequencies and step sizes carry ``_no_weight_decay``.

    Source: Gu et al. 2022 (arXiv 2206.11893).
    """

    def __init__(self, channels: int, d_state: int) -> None:
        """``d_state`` real scalars a channel, an even number: half as many pairs."""
        super().__init__()
        pairs = d_state // 2
        self.d_state = d_state
        self.log_dt = nn.Parameter(torch.empty(channels).uniform_(math.log(DT_MIN), math.log(DT_MAX)))
        self.log_rate = nn.Parameter(torch.full((channels, pairs), math.log(DECAY_RATE)))
        self.frequency = nn.Parameter(math.pi * torch.arange(pairs, dtype=self.log_rate.dtype).repeat(channels, 1))
        self.C = nn.Parameter(torch.randn(channels, pairs, 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(channels))
        for parameter in (self.log_dt, self.log_rate, self.frequency):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log decay and angle of one step (C, P), and ``2 C'`` as its real and its negated imaginary parts (C, 2 P)."""
        rate, dt = self.log_rate.exp(), self.log_dt.exp()[:, None]
        log_decay, angle = -rate * dt, self.frequency * dt
        # exp(dt A) - 1 and its quotient by A without a difference of near equals: steps are as small as 1e-3.
        real = torch.expm1(log_decay) * angle.cos() - 2 * (angle / 2).sin().square()
        imaginary = log_decay.exp() * angle.sin()
        hold = torch.stack([imaginary * self.frequency - real * rate, -imaginary * rate - real * self.frequency])
        held_real, held_imaginary = 2 * hold / (rate.square() + self.frequency.square())
        c_real, c_imaginary = self.C.unbind(-1)
        read = c_real * held_real - c_imaginary * held_imaginary, -c_real * held_imaginary - c_imaginary * held_real
        return log_decay, angle, torch.cat(read, dim=-1)

    def kernel(self, length: int) -> Tensor:
        """The first ``length`` taps of every channel, (C, L), ``D`` in the first; whatever autocast says in full precision."""
        with no_autocast(self.D):
            log_decay, angle, read = self._discrete()
            time_l = torch.arange(length, dtype=read.dtype, device=read.device)
            envelope, phase = torch.exp(log_decay[..., None] * time_l), angle[..., None] * time_l
            powers = torch.cat([envelope * phase.cos(), envelope * phase.sin()], dim=1)
            h_cl = torch.bmm(read[:, None], powers)[:, 0]
            return torch.cat([h_cl[:, :1] + self.D[:, None], h_cl[:, 1:]], dim=1)

    def factors(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """The kernel of a single pair in factors: ``h[t - s] = exp((t - s) log_decay) read[t] . write[s]``, but for ``D``.

        Returns:
            Log decays (C), and what reads and writes at every position, (L, C, 2).
        """
        log_decay, angle, read = self._discrete()
        phase_lc = torch.arange(length, dtype=read.dtype, device=read.device)[:, None] * angle[:, 0]
        write_lc2 = torch.stack([phase_lc.cos(), phase_lc.sin()], dim=-1)
        turned_lc2 = torch.stack([write_lc2[..., 1], -write_lc2[..., 0]], dim=-1)
        return log_decay[:, 0], read[:, :1] * write_lc2 + read[:, 1:] * turned_lc2, write_lc2

    def init_state(self, batch_size: int, *inner: int) -> Tensor:
        """Zero states (B, *inner, C, 2, P): real parts, imaginary parts."""
        channels, pairs = self.log_rate.shape
        return self.D.new_zeros(batch_size, *inner, channels, 2, pairs)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One input (B, *inner, C) and the state to the output (B, *inner, C) and the new state."""
        with no_autocast(self.D):
            log_decay, angle, read = self._discrete()
            decay_real, decay_imaginary = log_decay.exp() * angle.cos(), log_decay.exp() * angle.sin()
            real, imaginary = state.unbind(-2)
            turned = (
                decay_real * real - decay_imaginary * imaginary + u[..., None],
                decay_imaginary * real + decay_real * imaginary,
            )
            state = torch.stack(turned, dim=-2)
            return (read * state.flatten(-2)).sum(-1) + self.D * u, state


def diagonal_ssm_params(channels: int, d_state: int) -> int:
    """Trainable scalars of a :class:`DiagonalSSM`."""
    return channels * (2 * d_state + 2)


def diagonal_ssm_kernel_flops(channels: int, d_state: int, length: int) -> int:
    """Floating-point operations that sum the states of :meth:`DiagonalSSM.kernel`."""
    return 2 * channels * d_state * length
