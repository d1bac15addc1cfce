"""Softmax attention with rotary positions: over the whole past, or over a sliding window of it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.layers.base import LayerConfig, positive, register
from archlab.layers.ops.rotary import rotate

QUERY_BLOCK = 64
"""Queries that sliding attention handles together; each block sees its own keys and the window before it."""


class Attention(nn.Module):
    """Causal softmax attention; a query sees the last ``window`` tokens, itself included.

    Scaled-dot-product attention is PyTorch's own on every device. On a CPU it beats matrix products
    with an explicit softmax at all head widths from 8 to 128, forward and backward together.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_bld: Tensor) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, length, dim)``; any length of at least 1."""
        length = x_bld.shape[1]
        q, k, v = self._project(x_bld, torch.arange(length, device=x_bld.device))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True) if length <= self.window else self._sliding(q, k, v)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Empty key and value buffers ``(batch, heads, window, head_dim)`` and the position ``(batch,)``."""
        weight = self.qkv.weight
        dim = weight.shape[1]
        buffer = weight.new_zeros(batch_size, self.heads, self.window, dim // self.heads)
        return {"k": buffer, "v": buffer.clone(), "position": torch.zeros(batch_size, dtype=torch.int64, device=weight.device)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token ``(batch, dim)``; the newest token is the last of the buffer."""
        q, k, v = self._project(x_bd[None], state["position"])
        # The tokens of a step lie along the position axis while they are projected: (1, heads, batch, head_dim).
        q, k, v = (t.permute(2, 1, 0, 3) for t in (q, k, v))
        keys = torch.cat((state["k"][:, :, 1:], k), 2)
        values = torch.cat((state["v"][:, :, 1:], v), 2)
        age = torch.arange(self.window - 1, -1, -1, device=x_bd.device)
        filled = age <= state["position"][:, None]
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=filled[:, None, None])
        return self.out(mixed.flatten(1)), {"k": keys, "v": values, "position": state["position"] + 1}

    def _project(self, x_bld: Tensor, positions: Tensor) -> list[Tensor]:
        """Queries, keys and values, each ``(batch, heads, length, head_dim)``."""
        dim = x_bld.shape[-1]
        qk, v = torch.split(self.qkv(x_bld), [2 * dim, dim], -1)
        q, k = rotate(qk, positions, dim // self.heads).chunk(2, -1)
        return [t.view(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (q, k, v)]

    def _sliding(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention by blocks of queries, so the cost grows with the window, not with the length.

        Against one call with a mask, forward and backward together: never slower, 2.5 times faster at length 512.
        """
        length = q.shape[2]
        # Blocks come from split, whose backward is one concatenation; slices would pad a gradient each.
        keys, values = torch.split(k, QUERY_BLOCK, 2), torch.split(v, QUERY_BLOCK, 2)
        mixed = []
        for block, query in enumerate(torch.split(q, QUERY_BLOCK, 2)):
            start = block * QUERY_BLOCK
            first = _first_visible(start, self.window)
            visible = slice(first // QUERY_BLOCK, block + 1)
            offset = first % QUERY_BLOCK
            key, value = (torch.cat(blocks[visible], 2)[:, :, offset:] for blocks in (keys, values))
            behind = torch.arange(start, min(start + QUERY_BLOCK, length), device=q.device)[:, None] - torch.arange(
                first, first + key.shape[2], device=q.device
            )
            band = (behind >= 0) & (behind < self.window)
            mixed.append(F.scaled_dot_product_attention(query, key, value, attn_mask=band))
        return torch.cat(mixed, 2)


def _first_visible(position: int, window: int) -> int:
    return max(0, position - window + 1)


@register("attention")
@dataclass(frozen=True)
class AttentionConfig(LayerConfig):
    """Attention over the whole past with rotary positions and biases on every projection."""

    kind: ClassVar[Literal["sequence", "channel"]] = "sequence"
    paper: ClassVar[str] = "arXiv 1706.03762, 2104.09864"

    heads: int = 1
    """Heads; each is ``dim / heads`` wide, an even number."""

    def __post_init__(self) -> None:
        """Refuse fewer than one head."""
        positive(self, "heads")

    def validate(self, dim: int) -> None:
        """Refuse heads that do not divide the width into even parts."""
        if dim % (2 * self.heads) == 0:
            return
        fitting = [h for h in range(1, dim + 1) if dim % (2 * h) == 0]
        if not fitting:
            raise ArchlabError(f"{self}: width {dim} is odd and rotary positions need pairs of channels; use an even width")
        nearest = min(fitting, key=lambda h: abs(h - self.heads))
        raise ArchlabError(
            f"{self.name}(heads={self.heads}): width {dim} does not split into {self.heads} heads of even width; "
            f"the nearest that fits is heads={nearest}"
        )

    def visible(self, length: int) -> int:
        """Tokens that a query sees at most, itself included."""
        return length

    def num_params(self, dim: int, length: int) -> int:
        """Four square projections with biases."""
        return 4 * dim * dim + 4 * dim

    def state_size(self, dim: int, length: int) -> int:
        """A key and a value for every token that can be seen."""
        return 2 * self.visible(length) * dim

    def flops(self, dim: int, length: int) -> int:
        """Projections, scores and weighted values, over every pair that the blocks cover."""
        return 8 * dim * dim * length + 4 * dim * self._scores(length)

    def _scores(self, length: int) -> int:
        """Query-key pairs whose score is computed, masked ones included."""
        window = self.visible(length)
        if window == length:
            return length * length
        starts = range(0, length, QUERY_BLOCK)
        ends = [min(start + QUERY_BLOCK, length) for start in starts]
        return sum((end - start) * (end - _first_visible(start, window)) for start, end in zip(starts, ends, strict=True))

    def build(self, dim: int, max_length: int) -> Attention:
        """See :meth:`LayerConfig.build`; ``max_length`` bounds the step form's buffers only."""
        self.validate(dim)
        return Attention(dim, self.heads, self.visible(max_length))


@register("mh-attention")
@dataclass(frozen=True)
class MultiHeadAttentionConfig(AttentionConfig):
    """:class:`AttentionConfig` with 16 heads."""

    heads: int = 16


@register("sliding-attention")
@dataclass(frozen=True)
class SlidingAttentionConfig(AttentionConfig):
    """:class:`AttentionConfig` over a window of the past."""

    paper: ClassVar[str] = "arXiv 2004.05150, 2104.09864"

    window: int = 33
    """Tokens that a query sees, itself included: the default is 32 to the left and itself."""

    def __post_init__(self) -> None:
        """Refuse fewer than one head or visible token."""
        positive(self, "heads", "window")

    def visible(self, length: int) -> int:
        """The window, or the whole sequence where it is shorter."""
        return min(self.window, length)


@register("mh-sliding-attention")
@dataclass(frozen=True)
class MultiHeadSlidingAttentionConfig(SlidingAttentionConfig):
    """:class:`SlidingAttentionConfig` with 16 heads."""

    heads: int = 16
