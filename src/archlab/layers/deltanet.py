"""DeltaNet, Gated DeltaNet and Kimi Delta Attention: a matrix state in which a token replaces what its key stores."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.fields import Count
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.delta_rule import delta_rule_flops, gated_delta_rule, unit_length
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.rms_norm import RMSNorm
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.ops.step_size import step_size_bias
from archlab.layers.registry import register

NORM_EPS = 1e-5


@register("deltanet")
class DeltaNetConfig(LayerConfig):
    """DeltaNet (arXiv 2406.06484, section 3): linear attention by the delta rule, after short convolutions.

    Knobs: ``heads``; ``expand_v``, width of the values over the layer's; ``d_conv``, taps of the short convolution;
    ``allow_neg_eigval``, rates of up to 2 instead of 1, with which a token can flip the sign of what is stored under
    its key (arXiv 2411.12537).
    """

    paper: ClassVar[str] = "arXiv 2406.06484"
    state_knob: ClassVar[str] = "heads"

    heads: Divisor = 8
    expand_v: Count = 1
    d_conv: Count = 4
    allow_neg_eigval: bool = False

    def _head(self, dim: int) -> tuple[int, int]:
        """Widths of a head's keys and values."""
        return dim // self.heads, self.expand_v * dim // self.heads

    def _decay_dim(self, dim: int) -> int:
        """Decays of a head."""
        return 1

    def _convolved(self, dim: int) -> int:
        """Channels of queries, keys and values together."""
        return (2 + self.expand_v) * dim

    def _weights(self, dim: int) -> int:
        """Entries of the linear maps."""
        return dim * (self._convolved(dim) + self.expand_v * dim + self.heads)

    def _vectors(self, dim: int) -> int:
        """Parameters outside of linear maps."""
        return self.d_conv * self._convolved(dim) + self._head(dim)[1]

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + self._vectors(dim)

    def matrix_state(self, dim: int, length: int) -> int:
        keys, values = self._head(dim)
        return self.heads * keys * values

    def state_size(self, dim: int, length: int) -> int:
        # The matrix of each head, and the inputs the convolution looks back on.
        return self.matrix_state(dim, length) + (self.d_conv - 1) * self._convolved(dim)

    def flops(self, dim: int, length: int) -> int:
        head = *self._head(dim), length, chunk_size(*self._head(dim), length)
        mixing = self.heads * delta_rule_flops(*head, self._decay_dim(dim))
        return 2 * length * (self._weights(dim) + self.d_conv * self._convolved(dim)) + mixing

    def build(self, dim: int, max_length: int) -> "DeltaNet":
        self.validate(dim)
        return DeltaNet(dim, self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval)


@register("gated-deltanet")
class GatedDeltaNetConfig(DeltaNetConfig):
    """Gated DeltaNet (arXiv 2412.06464, section 3): the delta rule on a state that decays, one rate a head and token.

    Knobs: as :class:`DeltaNetConfig`.
    """

    paper: ClassVar[str] = "arXiv 2412.06464"

    @override
    def _weights(self, dim: int) -> int:
        # Adds the gate of the output and the decays.
        return super()._weights(dim) + dim * (self.expand_v * dim + self.heads)

    def _vectors(self, dim: int) -> int:
        # Adds rate and step size of each head's decay.
        return super()._vectors(dim) + 2 * self.heads

    def build(self, dim: int, max_length: int) -> "GatedDeltaNet":
        self.validate(dim)
        return GatedDeltaNet(dim, self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval)


@register("kda")
class KDAConfig(DeltaNetConfig):
    """Kimi Delta Attention (arXiv 2510.26692, section 3): Gated DeltaNet with a decay for each channel of the keys.

    Knobs: as :class:`DeltaNetConfig`. Decays and the output's gate are of low rank, a head's
    width of values.
    """

    paper: ClassVar[str] = "arXiv 2510.26692"

    @override
    def _decay_dim(self, dim: int) -> int:
        # One for each channel of the keys.
        return self._head(dim)[0]

    @override
    def _weights(self, dim: int) -> int:
        # Adds decays and the output's gate.
        return super()._weights(dim) + self._head(dim)[1] * (3 + self.expand_v) * dim

    def _vectors(self, dim: int) -> int:
        # Adds each head's rate, each channel's step size, and the bias of the gate.
        return super()._vectors(dim) + self.heads + (1 + self.expand_v) * dim

    def build(self, dim: int, max_length: int) -> "KDA":
        self.validate(dim)
        return KDA(dim, self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval)


class DeltaNet(nn.Module):
    """``o_t = q_t S_t / sqrt(K)`` with ``S_t = S_{t-1} + k_t (beta_t (v_t - k_t S_{t-1}))``.

    Queries, keys and values pass a causal convolution and SiLU; queries and keys are scaled to unit length.
    The output of each head goes through an RMS norm, then a last projection. States are in at least float32.
    """

    def __init__(self, dim: int, heads: int, values: int, d_conv: int, allow_neg_eigval: bool) -> None:
        """``values`` is the width over all ``heads``."""
        super().__init__()
        self.heads = heads
        self.split = [dim, dim, values]
        self.max_beta = 2.0 if allow_neg_eigval else 1.0
        self.qkv_proj = nn.Linear(dim, sum(self.split), bias=False)
        self.conv = ShortConv(sum(self.split), d_conv, bias=False)
        self.beta_proj = nn.Linear(dim, heads, bias=False)
        self.norm = RMSNorm(values // heads, eps=NORM_EPS)
        self.out_proj = nn.Linear(values, dim, bias=False)

    def _log_decay(self, x: Tensor) -> Tensor:
        """Logarithms of the decays of the tokens ``x``, at most 0: (..., heads, keys or 1), or what expands to it."""
        return torch.zeros(1, dtype=at_least_float32(x).dtype, device=x.device)

    def _gate(self, x: Tensor, normed: Tensor) -> Tensor:
        """Output of the layer from those of the heads (..., heads, values), given the tokens ``x`` (..., D)."""
        return normed

    def _project(self, x: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values, rates and log decays, each (..., heads, width), of tokens and their convolved projection."""
        q, k, v = (t.view(*t.shape[:-1], self.heads, -1) for t in torch.split(at_least_float32(F.silu(qkv)), self.split, -1))
        beta = self.max_beta * at_least_float32(self.beta_proj(x)).sigmoid()[..., None]
        return unit_length(q) * q.shape[-1] ** -0.5, unit_length(k), v, beta, self._log_decay(x).expand(*k.shape[:-1], -1)

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Norm, gate and last projection of the heads' outputs (..., heads, values)."""
        return self.out_proj(self._gate(x, self.norm(mixed)).flatten(-2).to(x.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, beta, log_decay = self._project(x_bld, self.conv(self.qkv_proj(x_bld)))
        chunk = chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1])
        with no_autocast(x_bld):
            mixed = gated_delta_rule(q, k, v, beta, log_decay, chunk)
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        keys, _, values = (width // self.heads for width in self.split)
        matrix = self.qkv_proj.weight.new_zeros(batch_size, self.heads, keys, values)
        return {"kv": matrix, "conv": self.conv.init_state(batch_size)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        qkv, conv = self.conv.step(self.qkv_proj(x_bd), state["conv"])
        q, k, v, beta, log_decay = self._project(x_bd, qkv)
        kv = log_decay.exp()[..., None] * state["kv"]
        written = beta * (v - (k[..., None] * kv).sum(-2))
        kv = kv + k[..., None] * written[..., None, :]
        return self._read_out(x_bd, (q[..., None] * kv).sum(-2)), {"kv": kv, "conv": conv}


class GatedDeltaNet(DeltaNet):
    """``S_t = a_t S_{t-1} + k_t (beta_t (v_t - k_t a_t S_{t-1}))`` with ``a_t = exp(-A softplus(W x_t + b))`` for each head.

    The normalised output of each head is multiplied by ``silu(W_g x_t)``; all else as :class:`DeltaNet`.
    """

    def __init__(self, dim: int, heads: int, values: int, d_conv: int, allow_neg_eigval: bool) -> None:
        """``A`` starts uniform in (0, 16], the softplus of ``b`` log-uniform in [0.001, 0.1]."""
        super().__init__(dim, heads, values, d_conv, allow_neg_eigval)
        self.dt_proj = nn.Linear(dim, heads, bias=False)
        self.dt_bias = nn.Parameter(step_size_bias(heads))
        self.A_log = nn.Parameter((16 * (1 - torch.rand(heads))).log())  # 1 - rand is never zero
        self.gate_proj = nn.Linear(dim, values, bias=False)
        for parameter in (self.dt_bias, self.A_log):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    @override
    def _log_decay(self, x: Tensor) -> Tensor:
        # (..., heads, 1).
        dt = F.softplus(at_least_float32(self.dt_proj(x)) + self.dt_bias)
        return -(self.A_log.exp() * dt)[..., None]

    @override
    def _gate(self, x: Tensor, normed: Tensor) -> Tensor:
        return normed * F.silu(self.gate_proj(x)).view_as(normed)


class KDA(DeltaNet):
    """``S_t = D_t S_{t-1} + k_t (beta_t (v_t - k_t D_t S_{t-1}))`` with ``D_t = diag(exp(-A softplus(W2 W1 x_t + b)))``.

    The normalised output of each head is multiplied by ``sigmoid(V2 V1 x_t + c)``; all else as :class:`DeltaNet`.
    """

    def __init__(self, dim: int, heads: int, values: int, d_conv: int, allow_neg_eigval: bool) -> None:
        """``A``, one a head, starts uniform in [1, 16], the softplus of ``b`` log-uniform in [0.001, 0.1]."""
        super().__init__(dim, heads, values, d_conv, allow_neg_eigval)
        rank = values // heads
        self.dt_proj = nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim, bias=False))
        self.dt_bias = nn.Parameter(step_size_bias(dim))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.gate_proj = nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, values))
        for parameter in (self.dt_bias, self.A_log):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    @override
    def _log_decay(self, x: Tensor) -> Tensor:
        # (..., heads, keys).
        dt = F.softplus(at_least_float32(self.dt_proj(x)) + self.dt_bias)
        return -self.A_log.exp()[:, None] * dt.view(*x.shape[:-1], self.heads, -1)

    @override
    def _gate(self, x: Tensor, normed: Tensor) -> Tensor:
        return normed * torch.sigmoid(self.gate_proj(x)).view_as(normed)
