"""Linear attention and Based: softmax replaced by a product of features, so that the past is a matrix state."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from archlab.fields import Bound, Count
from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.feature_map import FEATURE_MAPS, Taylor
from archlab.layers.ops.linear_attention import chunk_size, linear_attention, linear_attention_flops
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.registry import register

EPS = 1e-6
"""Least magnitude of the denominator."""


@register("linear-attention")
class LinearAttentionConfig(LayerConfig):
    """Linear attention (arXiv 2006.16236, equations 9 to 12) with one head.

    Knobs: ``heads``; ``feature_map`` of queries and keys, untied, of :mod:`archlab.layers.ops.feature_map`;
    ``normalize`` by the sum of the scores. Scores are scaled by the head's width under ``taylor`` only.
    """

    paper: ClassVar[str] = "arXiv 2006.16236"
    state_knob: ClassVar[str] = "heads"

    heads: Divisor = 1
    feature_map: Annotated[str, Bound(FEATURE_MAPS.__contains__, f"from {', '.join(FEATURE_MAPS)}")] = "elementwise-product"
    normalize: bool = True

    def num_params(self, dim: int, length: int) -> int:
        return 4 * dim * dim + 2 * FEATURE_MAPS[self.feature_map].num_params(dim // self.heads)

    def matrix_state(self, dim: int, length: int) -> int:
        return FEATURE_MAPS[self.feature_map].width(dim // self.heads) * dim

    def state_size(self, dim: int, length: int) -> int:
        # The matrix of each head and, if normalised, its sum of keys.
        keys = self.heads * FEATURE_MAPS[self.feature_map].width(dim // self.heads)
        return self.matrix_state(dim, length) + keys * self.normalize

    def flops(self, dim: int, length: int) -> int:
        head = dim // self.heads
        features = FEATURE_MAPS[self.feature_map]
        width = features.width(head)
        mixing = linear_attention_flops(width, head, length, chunk_size(width, head, length))
        return 8 * dim * dim * length + self.heads * (2 * features.flops(head) * length + mixing)

    def build(self, dim: int, max_length: int) -> "LinearAttention":
        self.validate(dim)
        return LinearAttention(dim, self.heads, dim // self.heads, self.feature_map, self.normalize)


@register("mh-linear-attention")
class MultiHeadLinearAttentionConfig(LinearAttentionConfig):
    """:class:`LinearAttentionConfig` with 16 heads."""

    heads: int = 16


@register("based")
class BasedConfig(LayerConfig):
    """Based's linear attention (arXiv 2402.18668): weights ``1 + s + s**2 / 2`` with ``s = q . k / sqrt(feature_dim)``.

    Knobs: ``heads``; ``feature_dim``, channels of a head's queries and keys. In the paper such layers alternate with
    sliding attention and short convolutions.
    """

    paper: ClassVar[str] = "arXiv 2402.18668"
    state_knob: ClassVar[str] = "feature_dim"

    heads: Divisor = 8
    feature_dim: Count = 4

    def num_params(self, dim: int, length: int) -> int:
        return 2 * dim * dim + 2 * dim * self.heads * self.feature_dim

    def matrix_state(self, dim: int, length: int) -> int:
        return Taylor.width(self.feature_dim) * dim

    def state_size(self, dim: int, length: int) -> int:
        return self.matrix_state(dim, length) + Taylor.width(self.feature_dim) * self.heads

    def flops(self, dim: int, length: int) -> int:
        head = Taylor.width(self.feature_dim), dim // self.heads, length
        return 2 * length * self.num_params(dim, length) + self.heads * linear_attention_flops(*head, chunk_size(*head))

    def build(self, dim: int, max_length: int) -> "LinearAttention":
        self.validate(dim)
        return LinearAttention(dim, self.heads, self.feature_dim, feature_map="taylor", normalize=True)


class LinearAttention(nn.Module):
    """``o_t = q_t S_t / (q_t . z_t)`` with ``S_t = S_{t-1} + k_t v_t``, ``z_t = z_{t-1} + k_t`` and features ``q``, ``k``.

    Features may be negative, so the denominator can cross zero: it keeps its sign, and its magnitude is at
    least 1e-6. Without normalisation the output is the numerator. Sums run in at least float32.
    """

    def __init__(self, dim: int, heads: int, key_dim: int, feature_map: str, normalize: bool) -> None:
        """``heads`` heads with queries and keys of width ``key_dim``; a feature map for each of both, shared by the heads."""
        super().__init__()
        self.heads = heads
        self.normalize = normalize
        self.q_proj, self.k_proj = nn.Linear(dim, heads * key_dim, bias=False), nn.Linear(dim, heads * key_dim, bias=False)
        self.v_proj, self.out_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        features = FEATURE_MAPS[feature_map]
        self.q_map, self.k_map = features(key_dim), features(key_dim)
        self.features = features.width(key_dim)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query features, key features and values (..., heads, width).

        Queries and keys are computed outside autocast: a denominator near zero magnifies their rounding.
        """
        heads = (*x.shape[:-1], self.heads, -1)
        with no_autocast(x):
            wide = x.to(self.q_proj.weight.dtype)
            q = self.q_map(self.q_proj(wide).view(heads))
            k = self.k_map(self.k_proj(wide).view(heads))
        return at_least_float32(q), at_least_float32(k), at_least_float32(self.v_proj(x).view(heads))

    def forward(self, x_bld: Tensor) -> Tensor:
        batch, length, _ = x_bld.shape
        q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in self._project(x_bld))
        with no_autocast(x_bld):
            mixed, total = linear_attention(q, k, v, chunk_size(q.shape[-1], v.shape[-1], length))
            if self.normalize:
                mixed = mixed * _away_from_zero(total).reciprocal()
        return self.out_proj(mixed.reshape(batch, self.heads, length, -1).transpose(1, 2).flatten(2).to(x_bld.dtype))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        weight = self.v_proj.weight
        head = weight.shape[0] // self.heads
        state = {"kv": weight.new_zeros(batch_size, self.heads, self.features, head)}
        if self.normalize:
            state["k"] = weight.new_zeros(batch_size, self.heads, self.features)
        return state

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        q, k, v = self._project(x_bd)
        new = {"kv": state["kv"] + k[..., None] * v[..., None, :]}
        mixed = (q[..., None] * new["kv"]).sum(-2)
        if self.normalize:
            new["k"] = state["k"] + k
            mixed = mixed / _away_from_zero((q * new["k"]).sum(-1, keepdim=True))
        return self.out_proj(mixed.flatten(1)), new


def _away_from_zero(x: Tensor) -> Tensor:
    """``x`` with its sign kept and its magnitude raised to at least ``EPS``."""
    return torch.where(x < 0, x.clamp(max=-EPS), x.clamp(min=EPS))
