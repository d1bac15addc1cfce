"""RWKV-6 (Finch): RWKV-5 whose decays and mixes with the token before are chosen by each token."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from archlab.layers.registry import register
from archlab.layers.rwkv5 import RWKV5, RWKV5ChannelMixerConfig, RWKV5Config, first_mixes

MIX_RANK, DECAY_RANK = 32, 64


@register("rwkv-6")
@dataclass(frozen=True)
class RWKV6Config(RWKV5Config):
    """RWKV-6 time mixing (arXiv 2404.05892), ranks of 32 for the mixes and 64 for the decays.

    Knob: ``heads``.
    """

    @override
    def _weights(self, dim: int) -> int:
        # Adds five mixes and the decays, of low rank.
        return super()._weights(dim) + 2 * dim * (5 * MIX_RANK + DECAY_RANK)

    @override
    def _mixes(self) -> int:
        # Adds that of the decays, and that from which the other five are computed.
        return super()._mixes() + 2

    @override
    def build(self, dim: int, max_length: int) -> "RWKV6":
        self.validate(dim)
        return RWKV6(dim, self.heads)


@register("rwkv-6-channel-mixer")
@dataclass(frozen=True)
class RWKV6ChannelMixerConfig(RWKV5ChannelMixerConfig):
    """RWKV-6 channel mixing (arXiv 2404.05892), which is that of RWKV-5.

    Knob: ``expand``, inner width over width.
    """


class RWKV6(RWKV5):
    """:class:`RWKV5` with ``w_t = w + tanh(d_t W1) W2`` and, for each of ``r, k, v, g, d``, ``mu_t = mu + tanh(z_t V1) V2``.

    ``d_t`` and ``z_t`` are mixes of a token with the one before, as the others are; that of ``z_t`` is fixed.
    """

    def __init__(self, dim: int, heads: int) -> None:
        """Matrices of low rank start uniform in [-1e-4, 1e-4]."""
        super().__init__(dim, heads)
        self.mix = nn.Parameter(first_mixes(dim, 0.5, 1.0, 1.0, 0.5, 1.0))
        self.mix_of_mixes = nn.Parameter(first_mixes(dim, 1.0)[0])
        shapes = (dim, 5 * MIX_RANK), (5, MIX_RANK, dim), (dim, DECAY_RANK), (DECAY_RANK, dim)
        self.mix_down, self.mix_up, self.decay_down, self.decay_up = (
            nn.Parameter(torch.empty(shape).uniform_(-1e-4, 1e-4)) for shape in shapes
        )
        for parameter in (self.mix, self.mix_of_mixes, self.mix_down, self.mix_up, self.decay_down, self.decay_up):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    @override
    def _mixed(self, x: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        change = last - x
        low_rank = torch.tanh(torch.addcmul(x, change, self.mix_of_mixes) @ self.mix_down)
        chosen = low_rank.view(-1, 5, MIX_RANK).transpose(0, 1) @ self.mix_up
        mixes = (chosen + self.mix[:, None]).view(5, *x.shape)
        *others, for_decay = (torch.addcmul(x, change, mix) for mix in mixes)
        return *others, self.log_rate + torch.tanh(for_decay @ self.decay_down) @ self.decay_up
