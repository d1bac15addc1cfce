"""The implicit filter of Hyena: a small network from position to one tap of every kernel."""

import math

import torch
from torch import Tensor, nn

from archlab.layers.ops.long_conv import causal_conv_step
from archlab.layers.ops.precision import no_autocast

NUM_FEATURES = 3
NUM_HIDDEN = 2

_DECAY_TARGET = 1e-2  # what the window has fallen to at the two positions below, as fractions of the maximum length
_SLOW_DECAY_AT = 1.5
_FAST_DECAY_AT = 0.3
_FREQUENCY = 1e-4


class ImplicitFilter(nn.Module):
    """Kernels ``h[c, t] = MLP(z(t))[c] exp(-|delta_c| t / (max_length - 1))``.

    ``z(t)`` starts as (time in [0, 1], cosine, sine) and is trained. The network has two hidden layers
    between its first and its last, sines with one trainable vector of frequencies for activation, and no
    bias at the end. The decay rates ``delta`` are fixed, evenly spaced over the channels. Time is measured
    in fractions of ``max_length``, so the kernels depend on it and not on the length asked for.
    All parameters carry ``_no_weight_decay``.

    Source: Poli et al. 2023 (arXiv 2302.10866), section 3.3 and appendix D.3.
    """

    def __init__(self, channels: int, max_length: int, width: int) -> None:
        super().__init__()
        time_l = torch.linspace(0, 1, max_length)
        angle_l = 2 * math.pi * _FREQUENCY * torch.arange(max_length) / max_length
        self.features_lf = nn.Parameter(torch.stack([time_l, angle_l.cos(), -angle_l.sin()], dim=-1))
        self.frequency = nn.Parameter(torch.ones(width))
        self.hidden = nn.ModuleList([nn.Linear(NUM_FEATURES if i == 0 else width, width) for i in range(1 + NUM_HIDDEN)])
        self.taps = nn.Linear(width, channels, bias=False)
        for parameter in self.parameters():
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps of every kernel, (channels, length), whatever autocast says in full precision."""
        with no_autocast(self.features_lf):
            z_lf = self.features_lf[:length]
            for linear in self.hidden:
                z_lf = torch.sin(self.frequency * linear(z_lf))
            h_cl: Tensor = self.taps(z_lf).t() * self.window(length)
        return h_cl

    def window(self, length: int) -> Tensor:
        """The decay ``exp(-delta_c t / (max_length - 1))`` of every kernel, (channels, length)."""
        like = self.features_lf
        time_l = torch.linspace(0, 1, len(like), dtype=like.dtype, device=like.device)[:length]
        rate_c = torch.linspace(
            1 / _SLOW_DECAY_AT, 1 / _FAST_DECAY_AT, self.taps.out_features, dtype=like.dtype, device=like.device
        )
        return torch.exp(math.log(_DECAY_TARGET) * rate_c[:, None] * time_l)

    def step(self, x_bc: Tensor, memory_blc: Tensor) -> tuple[Tensor, Tensor]:
        """One value a filter, (B, channels), after the last ``max_length - 1``: what comes out, and the new last values."""
        return causal_conv_step(x_bc, memory_blc, self(len(self.features_lf)))

    @staticmethod
    def num_params(channels: int, max_length: int, width: int) -> int:
        """Trainable scalars."""
        hidden = (NUM_FEATURES + 1) * width + NUM_HIDDEN * (width + 1) * width
        return NUM_FEATURES * max_length + width + hidden + width * channels

    @staticmethod
    def memory(max_length: int, width: int) -> int:
        """Scalars that ``step`` carries for each filter: the kernel has no finite recurrence."""
        return max_length - 1

    @staticmethod
    def flops(channels: int, length: int, width: int) -> int:
        """Floating-point operations to evaluate ``length`` taps of every kernel."""
        return 2 * length * (NUM_FEATURES * width + NUM_HIDDEN * width**2 + width * channels)
