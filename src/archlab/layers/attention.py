"""Softmax attention with rotary positions: over the whole past or a sliding window of it, with keys that heads may share."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Count, Natural
from archlab.layers.contract import EvenDivisor, LayerConfig, nearest_divisor
from archlab.layers.ops.rotary import rotate
from archlab.layers.ops.rotary_attention import rotary_attention
from archlab.layers.ops.sliding_attention import scored_pairs, sliding_attention
from archlab.layers.registry import register

_NARROW = 16  # widest head of rotary_attention


class Attention(nn.Module):
    """Causal softmax attention; a query sees the last ``window`` tokens, itself included, or with ``None`` all.

    Each of ``kv_heads`` heads of keys and values serves ``heads / kv_heads`` heads of queries.

    ``forward`` takes any length. The step form remembers ``buffer_length`` tokens: without a window, it is
    exact for as many steps.

    Attention over the whole past is PyTorch's own, but for narrow heads in float32 on a CPU. There
    :func:`rotary_attention` takes, forward, backward and projections together, 1.2 to 2.5 times less time at a head
    width of 8 and lengths of 32 to 1024 in batches of 8 or more, 1.1 to 1.3 times less at 16; from 32 on it is no better.
    """

    def __init__(self, dim: int, heads: int, kv_heads: int, window: int | None, buffer_length: int) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads
        self.window = window
        self.buffer_length = buffer_length
        self.head_dim = dim // heads
        self.split = [dim, kv_heads * self.head_dim, kv_heads * self.head_dim]
        self.qkv = nn.Linear(dim, sum(self.split))
        self.out = nn.Linear(dim, dim)

    def forward(self, x_bld: Tensor) -> Tensor:
        length = x_bld.shape[1]
        window = self.window if self.window is not None and self.window < length else None
        if window is None and self._is_narrow(x_bld):
            return self._channel_major(x_bld)
        q, k, v = self._project(x_bld, torch.arange(length, device=x_bld.device))
        k, v = self._for_every_head(k, 2), self._for_every_head(v, 2)
        if window is None:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            mixed_blhd = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        else:
            mixed_blhd = sliding_attention(q, k, v, window)
        return self.out(mixed_blhd.flatten(2))

    def _is_narrow(self, x_bld: Tensor) -> bool:
        in_full = x_bld.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        return x_bld.is_cpu and in_full and x_bld.shape[-1] <= _NARROW * self.heads

    def _channel_major(self, x_bld: Tensor) -> Tensor:
        batch, length, dim = x_bld.shape
        qkv_cm = torch.addmm(self.qkv.bias[:, None], self.qkv.weight, x_bld.reshape(-1, dim).t())
        if self.kv_heads < self.heads:
            parts = (part_cm.view(-1, self.head_dim, batch * length) for part_cm in torch.split(qkv_cm, self.split))
            qkv_cm = torch.cat([self._for_every_head(part_hdm, 0) for part_hdm in parts])
        mixed_cbl = rotary_attention(qkv_cm.view(-1, batch, length), self.heads)
        projected: Tensor = self.out(mixed_cbl.flatten(1).t())
        return projected.view(batch, length, dim)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        weight = self.qkv.weight
        buffer = weight.new_zeros(batch_size, self.kv_heads, self.buffer_length, self.head_dim)
        return {"k": buffer, "v": buffer.clone(), "position": torch.zeros(batch_size, dtype=torch.int64, device=weight.device)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token ``(batch, dim)``; the newest token is the last of the buffer."""
        q, k, v = self._project(x_bd[None], state["position"])
        # The tokens of a step lie along the position axis while they are projected: (1, batch, heads, head_dim).
        q, k, v = (t.permute(1, 2, 0, 3) for t in (q, k, v))
        keys = torch.cat((state["k"][:, :, 1:], k), 2)
        values = torch.cat((state["v"][:, :, 1:], v), 2)
        age = torch.arange(self.buffer_length - 1, -1, -1, device=x_bd.device)
        filled = age <= state["position"][:, None]
        seen = self._for_every_head(keys, 1), self._for_every_head(values, 1)
        mixed = F.scaled_dot_product_attention(q, *seen, attn_mask=filled[:, None, None])
        return self.out(mixed.flatten(1)), {"k": keys, "v": values, "position": state["position"] + 1}

    def _project(self, x_bld: Tensor, positions: Tensor) -> list[Tensor]:
        """Queries ``(batch, length, heads, head_dim)``, keys and values ``(batch, length, kv_heads, head_dim)``."""
        queries, keys, values = self.split
        qk, v = torch.split(self.qkv(x_bld), [queries + keys, values], -1)
        q, k = torch.split(rotate(qk, positions, self.head_dim), [queries, keys], -1)
        return [t.view(*t.shape[:2], -1, self.head_dim) for t in (q, k, v)]

    def _for_every_head(self, x: Tensor, axis: int) -> Tensor:
        """Keys or values, whose heads lie along ``axis``, once for each head of queries that they serve."""
        return x if x.shape[axis] == self.heads else x.repeat_interleave(self.heads // x.shape[axis], axis)


@register("attention")
class AttentionConfig(LayerConfig):
    """Attention over the whole past with rotary positions and biases on every projection."""

    paper: ClassVar[str] = "arXiv 1706.03762, 2104.09864"

    heads: EvenDivisor = 1
    """Heads; each is ``dim / heads`` wide, an even number."""

    @property
    def is_attention(self) -> bool:
        return self.visible_window() is None

    def visible_window(self) -> int | None:
        """Tokens that a query sees, itself included; ``None`` for the whole past."""
        return None

    def _visible(self, length: int) -> int:
        window = self.visible_window()
        return length if window is None else min(window, length)

    def key_value_heads(self) -> int:
        """Heads of keys and of values."""
        return self.heads

    def _kv_dim(self, dim: int) -> int:
        """Width of the keys of all heads, and of the values."""
        return dim // self.heads * self.key_value_heads()

    def num_params(self, dim: int, length: int) -> int:
        return (dim + 1) * 2 * (dim + self._kv_dim(dim))

    def state_size(self, dim: int, length: int) -> int:
        return 2 * self._visible(length) * self._kv_dim(dim)

    def flops(self, dim: int, length: int) -> int:
        window = self._visible(length)
        pairs = length * length if window == length else scored_pairs(length, window, dim // self.heads)
        return 4 * dim * (dim + self._kv_dim(dim)) * length + 4 * dim * pairs

    def paper_flops(self, dim: int, length: int) -> float | None:
        if not self.is_attention or self.key_value_heads() != self.heads:
            return None
        return 8.0 * length * dim**2 + 4.0 * length**2 * dim + 2.0 * length**2 * self.heads

    def build(self, dim: int, max_length: int) -> Attention:
        self.validate(dim)
        return Attention(dim, self.heads, self.key_value_heads(), self.visible_window(), self._visible(max_length))


@register("mh-attention")
class MultiHeadAttentionConfig(AttentionConfig):
    """:class:`AttentionConfig` with 16 heads."""

    heads: int = 16


@register("sliding-attention")
class SlidingAttentionConfig(AttentionConfig):
    """:class:`AttentionConfig` over a window of the past."""

    paper: ClassVar[str] = "arXiv 2004.05150, 2104.09864"
    state_knob: ClassVar[str] = "window"

    window: Count = 33
    """Tokens that a query sees, itself included: the default is 32 to the left and itself."""

    @override
    def visible_window(self) -> int:
        return self.window


@register("mh-sliding-attention")
class MultiHeadSlidingAttentionConfig(SlidingAttentionConfig):
    """:class:`SlidingAttentionConfig` with 16 heads."""

    heads: int = 16


@register("gqa")
class GroupedQueryAttentionConfig(AttentionConfig):
    """Grouped-query attention (arXiv 2305.13245): :class:`AttentionConfig` whose heads share keys and values in groups."""

    paper: ClassVar[str] = "arXiv 2305.13245, 2104.09864"

    heads: EvenDivisor = 16
    kv_heads: Count = 4
    """Heads of keys and values, each for ``heads / kv_heads`` heads of queries; 1 is multi-query attention."""
    window: Natural = 0
    """Tokens that a query sees, itself included; 0 for the whole past."""

    @property
    def state_knob(self) -> str:
        return "window" if self.window else ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads % self.kv_heads:
            raise ArchlabError(
                f"gqa(kv_heads={self.kv_heads}): {self.heads} heads do not split into {self.kv_heads} equal groups; "
                f"the nearest that fits is kv_heads={nearest_divisor(self.heads, self.kv_heads)}"
            )

    @override
    def key_value_heads(self) -> int:
        return self.kv_heads

    @override
    def visible_window(self) -> int | None:
        return self.window or None
