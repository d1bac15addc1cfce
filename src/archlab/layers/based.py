"""Based: linear attention whose scores are the second-order expansion of softmax's, over few channels."""

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from archlab.fields import Count
from archlab.layers.contract import LayerConfig, divides
from archlab.layers.linear_attention import LinearAttention
from archlab.layers.ops.feature_map import Taylor
from archlab.layers.ops.linear_attention import chunk_size, linear_attention_flops
from archlab.layers.registry import register


@register("based")
@dataclass(frozen=True)
class BasedConfig(LayerConfig):
    """Based's linear attention (arXiv 2402.18668): weights ``1 + s + s**2 / 2`` with ``s = q . k / sqrt(feature_dim)``.

    Knobs: ``heads``; ``feature_dim``, channels of a head's queries and keys. In the paper such layers alternate with
    sliding attention and short convolutions.
    """

    paper: ClassVar[str] = "arXiv 2402.18668"
    state_knob: ClassVar[str] = "feature_dim"
    head_knob: ClassVar[str] = "heads"

    heads: Count = 8
    feature_dim: Count = 4

    @override
    def validate(self, dim: int) -> None:
        divides(self, "heads", dim)

    @override
    def num_params(self, dim: int, length: int) -> int:
        return 2 * dim * dim + 2 * dim * self.heads * self.feature_dim

    @override
    def matrix_state(self, dim: int, length: int) -> int:
        return Taylor.width(self.feature_dim) * dim

    @override
    def state_size(self, dim: int, length: int) -> int:
        # The matrix of each head and its sum of keys.
        return self.matrix_state(dim, length) + Taylor.width(self.feature_dim) * self.heads

    @override
    def flops(self, dim: int, length: int) -> int:
        head = Taylor.width(self.feature_dim), dim // self.heads, length
        return 2 * length * self.num_params(dim, length) + self.heads * linear_attention_flops(*head, chunk_size(*head))

    @override
    def build(self, dim: int, max_length: int) -> LinearAttention:
        self.validate(dim)
        return LinearAttention(dim, self.heads, self.feature_dim, feature_map="taylor", normalize=True)
