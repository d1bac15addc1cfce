"""Hyena operators: gated long convolutions with implicit or rational kernels, depthwise or over outer products in heads."""

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.fields import Count
from archlab.layers.contract import Divisor, LayerConfig, total
from archlab.layers.ops.gated_long_conv import gated_long_conv, tied_short_conv
from archlab.layers.ops.implicit_filter import ImplicitFilter
from archlab.layers.ops.long_conv import causal_conv_heads, conv_flops, conv_heads_flops
from archlab.layers.ops.rational_filter import RationalFilter
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.registry import register

State = dict[str, Tensor]

KERNEL_SIZE = 3
_NUM_PROJECTIONS = 3
_FILTERS: dict[str, type[ImplicitFilter] | type[RationalFilter]] = {"implicit": ImplicitFilter, "rtf": RationalFilter}


class _HyenaConfig(LayerConfig):
    """Base of both operators: three tied projections, a convolution of a few taps, long kernels, a projection back."""

    proj_groups: int
    filter_order: int
    filter: str

    @abstractmethod
    def _sizes(self, dim: int) -> tuple[int, int]:
        """Channels of each projection, and kernels."""

    @abstractmethod
    def _conv_flops(self, dim: int, length: int) -> int:
        """Operations of the long convolution."""

    @property
    def state_knob(self) -> str:
        # The degree of a rational kernel.
        return "filter_order" if self.filter == "rtf" else ""

    def validate(self, dim: int) -> None:
        super().validate(dim)
        projected = _NUM_PROJECTIONS * self._sizes(dim)[0]
        if projected % self.proj_groups:
            raise ArchlabError(
                f"{self.name}(proj_groups={self.proj_groups}): the {projected} channels of the three projections are not"
                f" divisible by {self.proj_groups}; proj_groups=1 always fits"
            )

    def num_params(self, dim: int, length: int) -> int:
        inner, filters = self._sizes(dim)
        projected = _NUM_PROJECTIONS * inner
        block = (dim + 1) * projected // self.proj_groups + (KERNEL_SIZE + 1) * projected + (inner + 1) * dim
        return block + _FILTERS[self.filter].num_params(filters, length, self.filter_order) + filters

    def state_size(self, dim: int, length: int) -> int | None:
        short = (KERNEL_SIZE - 1) * (_NUM_PROJECTIONS * self._sizes(dim)[0] // self.proj_groups)
        return total([self.matrix_state(dim, length), short])

    def flops(self, dim: int, length: int) -> int:
        inner, filters = self._sizes(dim)
        projected = _NUM_PROJECTIONS * inner
        # The bias of the short convolution is one more tap.
        block = 2 * length * (dim * projected // self.proj_groups + (KERNEL_SIZE + 1) * projected + inner * dim)
        return block + _FILTERS[self.filter].flops(filters, length, self.filter_order) + self._conv_flops(dim, length)


@register("hyena")
class HyenaConfig(_HyenaConfig):
    """Hyena of order 2: ``y = W_o (x0 * conv(h, x1 * v))`` with a long kernel ``h`` for each inner channel.

    ``(x0, x1, v)`` are three projections to ``inner_factor * dim`` channels behind a causal convolution of
    three taps. They are tied: the linear map has ``3 inner_factor dim / proj_groups`` outputs, repeated
    ``proj_groups`` times before they are split, so with the defaults the same three blocks appear in rotated
    roles and only the short convolution tells them apart.

    With ``filter="implicit"`` the kernel is a network over time, ``filter_order`` wide
    (:class:`~archlab.layers.ops.implicit_filter.ImplicitFilter`); with ``"rtf"`` its transfer function is a ratio of
    polynomials of degree ``filter_order`` (:class:`~archlab.layers.ops.rational_filter.RationalFilter`). Kernels are
    evaluated once for each ``forward``; ``flops`` charges that to the one sequence.

    Exact streaming keeps, for each inner channel, the last ``length - 1`` values of the filtered signal ``x1 * v`` (an
    implicit kernel has no finite recurrence) or the ``filter_order`` states of the rational kernel's recurrence; and
    two inputs of the short convolution, untied channels only.

    Source: Poli et al. 2023 (arXiv 2302.10866), definition 3.1; the defaults are those of MAD (arXiv 2403.17844).
    """

    paper: ClassVar[str] = "arXiv 2302.10866"

    inner_factor: Count = 4
    proj_groups: Count = 4
    filter_order: Count = 4
    filter: Literal["implicit", "rtf"] = "implicit"

    def _sizes(self, dim: int) -> tuple[int, int]:
        return self.inner_factor * dim, self.inner_factor * dim

    def matrix_state(self, dim: int, length: int) -> int:
        # The filtered signal, or the rational kernel's recurrence.
        return _FILTERS[self.filter].memory(length, self.filter_order) * self.inner_factor * dim

    def _conv_flops(self, dim: int, length: int) -> int:
        return conv_flops(self.inner_factor * dim, length, length)

    def paper_flops(self, dim: int, length: int) -> float:
        inner = self.inner_factor * dim
        filters = self.filter_order * length * inner
        long = 10 * length * math.log2(length) * inner + 4 * length * inner
        return 6 * length * dim * inner / self.proj_groups + 18 * length * inner + filters + long + 2 * length * dim * inner

    def build(self, dim: int, max_length: int) -> "Hyena":
        return Hyena(dim, self.inner_factor * dim, max_length, self.proj_groups, self.filter_order, self.filter)


@register("mh-hyena")
class MultiHeadHyenaConfig(_HyenaConfig):
    """Multi-head Hyena: one long kernel a head, over the outer products of its keys and values.

    ``y[e, t] = sum_d q[d, t] sum_s h[t - s] k[d, s] v[e, s]``. The paper describes 16 heads of 8 at width 128,
    the default here; its released code takes the number for the head's width and so runs 8 heads of 16: write
    ``mh-hyena(heads=8)`` for that layout. Projections are tied, and kernels chosen, as in :class:`HyenaConfig`.

    With implicit kernels exact streaming keeps the last ``length - 1`` keys and values (``2 dim`` scalars a position;
    their outer products would be ``dim * head width``), with rational ones ``filter_order`` states for each entry of
    the outer products; and two inputs of the short convolution, untied channels only.

    Source: Massaroli et al. 2023 (arXiv 2310.18780), section 4; the defaults are those of MAD (arXiv 2403.17844).
    """

    paper: ClassVar[str] = "arXiv 2310.18780"

    heads: Divisor = 16
    proj_groups: Count = 4
    filter_order: Count = 2
    filter: Literal["implicit", "rtf"] = "implicit"

    def _sizes(self, dim: int) -> tuple[int, int]:
        return dim, self.heads

    def matrix_state(self, dim: int, length: int) -> int:
        # Keys and values, or the rational kernel's recurrence for their products.
        return self.filter_order * dim * dim // self.heads if self.filter == "rtf" else (length - 1) * 2 * dim

    def _conv_flops(self, dim: int, length: int) -> int:
        return conv_heads_flops(dim, self.heads, length)

    def paper_flops(self, dim: int, length: int) -> float:
        filters = self.filter_order * length * self.heads
        long = 10 * length * math.log2(length) * dim**2 / self.heads + 4 * length * dim**2 / self.heads
        return 6 * length * dim**2 / self.proj_groups + 18 * length * dim + filters + long + 2 * length * dim**2

    def build(self, dim: int, max_length: int) -> "MultiHeadHyena":
        module = RationalMultiHeadHyena if self.filter == "rtf" else MultiHeadHyena
        return module(dim, max_length, self)


class HyenaBlock(nn.Module):
    """Base of both operators: tied projections, the short convolution, the kernel, the output projection."""

    def __init__(self, dim: int, inner: int, filters: int, max_length: int, groups: int, filter_order: int, filter: str) -> None:
        super().__init__()
        self.max_length = max_length
        self.groups = groups
        projected = _NUM_PROJECTIONS * inner
        self.in_proj = nn.Linear(dim, projected // self.groups)
        self.short_conv = ShortConv(projected, KERNEL_SIZE, bias=True)
        self.filter = _FILTERS[filter](filters, max_length, filter_order)
        self.memory = self.filter.memory(max_length, filter_order)
        self.skip = nn.Parameter(torch.randn(filters))
        self.out_proj = nn.Linear(inner, dim)

    def kernel(self, length: int) -> Tensor:
        """Kernels (filters, length); the skip connection around the convolution is part of the first tap."""
        h_cl = self.filter(length)
        return torch.cat([h_cl[:, :1] + self.skip[:, None], h_cl[:, 1:]], dim=1)

    def short_kernel(self) -> tuple[Tensor, Tensor]:
        """Weight (3 inner, 1, taps) and bias (3 inner) of the short convolution."""
        assert self.short_conv.bias is not None
        return self.short_conv.weight, self.short_conv.bias

    def project(self, x_bld: Tensor) -> Tensor:
        """The projections before they are repeated and convolved, channel-major (projected / groups, B, L)."""
        batch, length, dim = x_bld.shape
        if length > self.max_length:
            raise ArchlabError(f"length {length} exceeds max_length {self.max_length}: build the layer with a larger max_length")
        u_cm = torch.addmm(self.in_proj.bias[:, None], self.in_proj.weight, x_bld.reshape(-1, dim).t())
        return u_cm.view(-1, batch, length)

    def read_out(self, y_cbl: Tensor) -> Tensor:
        """Channel-major (inner, B, L) to (B, L, D)."""
        _, batch, length = y_cbl.shape
        return self.out_proj(y_cbl.flatten(1).t()).view(batch, length, -1)

    def project_step(self, x_bd: Tensor, short_bkc: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The three projections (B, inner) of one token, and the new inputs of the short convolution."""
        u_bc = self.in_proj(x_bd)
        y_bc, _ = self.short_conv.step(u_bc.repeat(1, self.groups), short_bkc.repeat(1, 1, self.groups))
        a_bc, b_bc, c_bc = y_bc.chunk(_NUM_PROJECTIONS, dim=-1)
        return a_bc, b_bc, c_bc, torch.cat([short_bkc[:, 1:], u_bc[:, None]], dim=1)

    def filter_step(self, x_bc: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """One value a filter, (B, filters, ...), through the kernel and the skip connection around it."""
        y_bc, memory = self.filter.step(x_bc, memory)
        return y_bc + torch.einsum("bc...,c->bc...", x_bc, self.skip), memory


class Hyena(HyenaBlock):
    """``y = W_o (x0 * conv(h, x1 * v))``, built by :class:`HyenaConfig`."""

    def __init__(self, dim: int, inner: int, max_length: int, groups: int, filter_order: int, filter: str) -> None:
        super().__init__(dim, inner, inner, max_length, groups, filter_order, filter)

    def forward(self, x_bld: Tensor) -> Tensor:
        return self.read_out(gated_long_conv(self.project(x_bld), *self.short_kernel(), self.kernel(x_bld.shape[1])))

    def init_state(self, batch_size: int) -> State:
        return {
            "short": self.skip.new_zeros(batch_size, KERNEL_SIZE - 1, self.in_proj.out_features),
            "signal": self.skip.new_zeros(batch_size, self.memory, len(self.skip)),
        }

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        x0_bc, x1_bc, v_bc, short_bkc = self.project_step(x_bd, state["short"])
        y_bc, memory = self.filter_step(x1_bc * v_bc, state["signal"])
        return self.out_proj(x0_bc * y_bc), {"short": short_bkc, "signal": memory}


class MultiHeadHyena(HyenaBlock):
    """``y = W_o (q . conv(h, k v^T))`` head by head, built by :class:`MultiHeadHyenaConfig`."""

    def __init__(self, dim: int, max_length: int, config: MultiHeadHyenaConfig) -> None:
        super().__init__(dim, dim, config.heads, max_length, config.proj_groups, config.filter_order, config.filter)
        self.heads = config.heads

    def forward(self, x_bld: Tensor) -> Tensor:
        qvk_cbl = tied_short_conv(self.project(x_bld), *self.short_kernel())
        q_hdbl, v_hebl, k_hdbl = qvk_cbl.view(3, self.heads, -1, *qvk_cbl.shape[1:])
        y_hebl = causal_conv_heads(q_hdbl, k_hdbl, v_hebl, self.kernel(x_bld.shape[1]))
        return self.read_out(y_hebl.flatten(0, 1))

    def init_state(self, batch_size: int) -> State:
        history = (self.max_length - 1, self.out_proj.in_features)
        return {
            "short": self.skip.new_zeros(batch_size, KERNEL_SIZE - 1, self.in_proj.out_features),
            "keys": self.skip.new_zeros(batch_size, *history),
            "values": self.skip.new_zeros(batch_size, *history),
        }

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        q_bc, v_bc, k_bc, short_bkc = self.project_step(x_bd, state["short"])
        keys_blc = torch.cat([state["keys"], k_bc[:, None]], dim=1)
        values_blc = torch.cat([state["values"], v_bc[:, None]], dim=1)
        q_bhd, k_blhd, v_blhe = (x.view(*x.shape[:-1], self.heads, -1) for x in (q_bc, keys_blc, values_blc))
        scores_bhl = torch.einsum("bhd,blhd->bhl", q_bhd, k_blhd) * self.kernel(self.max_length).flip(-1)
        y_bhe = torch.einsum("bhl,blhe->bhe", scores_bhl, v_blhe)
        return self.out_proj(y_bhe.flatten(1)), {"short": short_bkc, "keys": keys_blc[:, 1:], "values": values_blc[:, 1:]}


class RationalMultiHeadHyena(MultiHeadHyena):
    """:class:`MultiHeadHyena` whose kernels have a recurrence, over the outer products of keys and values."""

    def init_state(self, batch_size: int) -> State:
        head = self.out_proj.in_features // self.heads
        return {
            "short": self.skip.new_zeros(batch_size, KERNEL_SIZE - 1, self.in_proj.out_features),
            "products": self.skip.new_zeros(batch_size, self.memory, self.heads, head, head),
        }

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        *qvk, short_bkc = self.project_step(x_bd, state["short"])
        q_bhd, v_bhe, k_bhd = (x_bc.view(len(x_bc), self.heads, -1) for x_bc in qvk)
        y_bhde, products = self.filter_step(k_bhd[..., :, None] * v_bhe[..., None, :], state["products"])
        y_bhe = torch.einsum("bhd,bhde->bhe", q_bhd, y_bhde)
        return self.out_proj(y_bhe.flatten(1)), {"short": short_bkc, "products": products}
