"""The Hyena operators of StripedHyena 2: gated convolutions whose short, medium or long kernels are shared by channels."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.gated_long_conv import gated_long_conv
from archlab.layers.ops.long_conv import causal_conv_step, conv_flops
from archlab.layers.ops.precision import no_autocast
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.registry import register

State = dict[str, Tensor]

_SHORT_TAPS = 3
_WINDOW_EXPONENTS = -2, 2  # rates of the windows of medium kernels, 0.01 to 100 over a kernel
_MEDIUM_SCALE = 1e-5
_RESIDUE_SCALE = 0.1
_MODE_RATES = 0.01, 0.1


class _Kernel(NamedTuple):
    """Sizes of a kernel: its taps, scalars that its step form carries a channel, trainable scalars, FLOPs to evaluate it."""

    taps: int
    memory: int
    params: int
    flops: int


@dataclass(frozen=True)
class _GroupedHyenaConfig(LayerConfig):
    """``y = W_o (x0 * (conv(h, x1 * v) + b * x1 * v))``, with one kernel ``h`` for ``group_size`` channels.

    ``(x0, x1, v)`` are linear maps of the input, each behind a causal convolution of three taps; ``b`` is a skip
    connection of every channel, which short kernels lack. No biases.

    Source: Ku et al. 2025 (arXiv 2503.01868); the defaults are those of the models with which it was published.
    """

    paper: ClassVar[str] = "arXiv 2503.01868"
    _has_skip: ClassVar[bool] = True

    group_size: Divisor = 16

    def num_params(self, dim: int, length: int) -> int:
        return 4 * dim * dim + (3 * _SHORT_TAPS + self._has_skip) * dim + dim // self.group_size * self._kernel(length).params

    def matrix_state(self, dim: int, length: int) -> int:
        return self._kernel(length).memory * dim

    def state_size(self, dim: int, length: int) -> int:
        # States of the kernels and two inputs of the short convolutions.
        return self.matrix_state(dim, length) + (_SHORT_TAPS - 1) * 3 * dim

    def flops(self, dim: int, length: int) -> int:
        # Kernels are evaluated once a batch and charged to the one sequence.
        projections = 2 * length * (4 * dim * dim + 3 * (1 + _SHORT_TAPS) * dim)  # a bias of zero is one more tap
        kernel = self._kernel(length)
        return projections + conv_flops(dim, length, kernel.taps) + dim // self.group_size * kernel.flops

    def build(self, dim: int, max_length: int) -> "GroupedHyena":
        self.validate(dim)
        kernels = self._filter(dim // self.group_size, max_length)
        return GroupedHyena(dim, kernels, self._kernel(max_length).memory, self._has_skip)

    @abstractmethod
    def _kernel(self, length: int) -> _Kernel:
        """The sizes of one kernel."""

    @abstractmethod
    def _filter(self, groups: int, max_length: int) -> "ExplicitFilter | ModalFilter":
        """The kernels."""


@register("hyena-se")
class HyenaSEConfig(_GroupedHyenaConfig):
    """Hyena-SE, short and explicit: ``kernel_size`` trained taps, and the layer of :class:`_GroupedHyenaConfig` with ``b = 0``.

    Of more taps than the maximum length the last are left out.
    """

    state_knob: ClassVar[str] = "kernel_size"
    _has_skip: ClassVar[bool] = False

    kernel_size: Count = 7

    def _kernel(self, length: int) -> _Kernel:
        taps = min(self.kernel_size, length)
        return _Kernel(taps, memory=taps - 1, params=taps, flops=0)

    def _filter(self, groups: int, max_length: int) -> "ExplicitFilter":
        return ExplicitFilter(groups, self._kernel(max_length).taps)


@register("hyena-mr")
class HyenaMRConfig(HyenaSEConfig):
    """Hyena-MR, medium and regularised: as :class:`HyenaSEConfig`, under a window that decays over ``kernel_size`` taps, and
    with a skip connection."""

    _has_skip: ClassVar[bool] = True

    kernel_size: int = 128

    def _filter(self, groups: int, max_length: int) -> "RegularizedFilter":
        return RegularizedFilter(groups, self._kernel(max_length).taps, self.kernel_size)


@register("hyena-li")
class HyenaLIConfig(_GroupedHyenaConfig):
    """Hyena-LI, long and implicit: kernels are sums of ``d_state`` decaying exponentials.

    In the layer of :class:`_GroupedHyenaConfig`. Each exponential is a state of an exact recurrence of any length.
    """

    state_knob: ClassVar[str] = "d_state"

    group_size: Divisor = 1
    d_state: Count = 16

    def _kernel(self, length: int) -> _Kernel:
        return _Kernel(length, memory=self.d_state, params=3 * self.d_state, flops=2 * self.d_state * length)

    def _filter(self, groups: int, max_length: int) -> "ModalFilter":
        return ModalFilter(groups, self.d_state)


class ExplicitFilter(nn.Module):
    """Kernels (groups, taps) as they are trained, from the initialisation of a convolution; without weight decay."""

    def __init__(self, groups: int, taps: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(taps)
        self.taps = nn.Parameter(torch.empty(groups, taps).uniform_(-bound, bound))
        self.taps._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps of every kernel, fewer if it has fewer: (groups, taps)."""
        return self.taps[:, :length]

    def step(self, x_bg: Tensor, memory_bkg: Tensor) -> tuple[Tensor, Tensor]:
        """One value a channel, (B, groups, channels), after the last (B, taps - 1, groups, channels)."""
        return causal_conv_step(x_bg, memory_bkg, self(self.taps.shape[1]))


class RegularizedFilter(ExplicitFilter):
    """Trained taps times ``exp(-r_g t / (kernel_size - 1))``; the rates are fixed, evenly spaced in their logarithm.

    Taps start near zero, so that the skip connection is all there is at first.
    """

    def __init__(self, groups: int, taps: int, kernel_size: int) -> None:
        super().__init__(groups, taps)
        self.kernel_size = kernel_size
        nn.init.normal_(self.taps, std=_MEDIUM_SCALE / math.sqrt(kernel_size))

    def forward(self, length: int) -> Tensor:
        taps_gk = super().forward(length)
        groups, taps = taps_gk.shape
        rate_g = torch.logspace(*_WINDOW_EXPONENTS, groups, dtype=taps_gk.dtype, device=taps_gk.device)
        time_k = torch.arange(taps, dtype=taps_gk.dtype, device=taps_gk.device) / max(self.kernel_size - 1, 1)
        return taps_gk * torch.exp(-rate_g[:, None] * time_k)


class ModalFilter(nn.Module):
    """Kernels ``h_t = sum_n R_n exp(-e^(p_n) e^(gamma_n) t)``; ``R``, ``p`` and ``gamma`` (groups, modes) without weight decay.

    The rate of a mode is a product of two trained factors, as in the authors' code: ``e^gamma`` starts uniform in
    [0.01, 0.1] and ``e^p`` at ``1/e``, so modes first last for 27 to 270 positions.
    """

    def __init__(self, groups: int, modes: int) -> None:
        super().__init__()
        self.R = nn.Parameter(_RESIDUE_SCALE / math.sqrt(modes) * torch.randn(groups, modes))
        self.p = nn.Parameter(-torch.ones(groups, modes))
        self.gamma = nn.Parameter(torch.empty(groups, modes).uniform_(*_MODE_RATES).log())
        for parameter in self.parameters():
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _rates(self) -> Tensor:
        return torch.exp(self.p + self.gamma)

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps of every kernel, (groups, length), whatever autocast says in full precision."""
        with no_autocast(self.R):
            time_l = torch.arange(length, dtype=self.R.dtype, device=self.R.device)
            return torch.bmm(self.R[:, None], torch.exp(-self._rates()[:, :, None] * time_l))[:, 0]

    def step(self, x_bg: Tensor, memory_bng: Tensor) -> tuple[Tensor, Tensor]:
        """One value a channel, (B, groups, channels), into the modes (B, modes, groups, channels) of the past."""
        decayed_bng = torch.einsum("bng...,gn->bng...", memory_bng, torch.exp(-self._rates()))
        modes_bng = decayed_bng + x_bg[:, None]
        return torch.einsum("bng...,gn->bg...", modes_bng, self.R), modes_bng


class GroupedHyena(nn.Module):
    """``y = W_o (x0 * (conv(h, x1 * v) + b * x1 * v))``, built by :class:`_GroupedHyenaConfig`.

    ``forward`` takes any length. It is exact to the last bit about the past where kernels are short, and at lengths
    of up to 128; beyond, longer kernels are convolved by Fourier transforms.
    """

    def __init__(self, dim: int, filter: ExplicitFilter | ModalFilter, memory: int, has_skip: bool) -> None:
        super().__init__()
        self.memory = memory
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.short_conv = ShortConv(3 * dim, _SHORT_TAPS, bias=False)
        self.filter = filter
        bound = 1 / math.sqrt(_SHORT_TAPS)
        self.skip = nn.Parameter(torch.empty(dim).uniform_(-bound, bound)) if has_skip else None
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def kernel(self, length: int) -> Tensor:
        """Kernels (D, taps) of at most ``length`` taps; the skip connection is part of the first."""
        h_gk = self.filter(length)
        h_ck = h_gk.repeat_interleave(self.out_proj.in_features // len(h_gk), 0)
        if self.skip is None:
            return h_ck
        return torch.cat([h_ck[:, :1] + self.skip[:, None], h_ck[:, 1:]], dim=1)

    def forward(self, x_bld: Tensor) -> Tensor:
        batch, length, dim = x_bld.shape
        u_cbl = (self.in_proj.weight @ x_bld.reshape(-1, dim).t()).view(-1, batch, length)
        weight = self.short_conv.weight
        y_cbl = gated_long_conv(u_cbl, weight, weight.new_zeros(len(weight)), self.kernel(length))
        return self.out_proj(y_cbl.flatten(1).t()).view(batch, length, dim)

    def init_state(self, batch_size: int) -> State:
        """The state before the first token."""
        groups = len(self.filter(1))
        memory = self.out_proj.weight.new_zeros(batch_size, self.memory, groups, self.out_proj.in_features // groups)
        return {"short": self.short_conv.init_state(batch_size), "memory": memory}

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        u_bc, short = self.short_conv.step(self.in_proj(x_bd), state["short"])
        x0_bd, x1_bd, v_bd = u_bc.chunk(3, -1)
        signal_bd = x1_bd * v_bd
        y_bgc, memory = self.filter.step(signal_bd.view(len(x_bd), *state["memory"].shape[2:]), state["memory"])
        y_bd = y_bgc.flatten(1) if self.skip is None else y_bgc.flatten(1) + self.skip * signal_bd
        return self.out_proj(x0_bd * y_bd), {"short": short, "memory": memory}
