"""Softmax attention with rotary positions: over the whole past, or over a sliding window of it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.layers.base import LayerConfig, positive, register
from archlab.layers.ops.rotary import rotate
from archlab.layers.ops.rotary_attention import rotary_attention
from archlab.layers.ops.sliding_attention import scored_pairs, sliding_attention

_NARROW = 16  # widest head of rotary_attention


class Attention(nn.Module):
    """Causal softmax attention; a query sees the last ``window`` tokens, itself included, or with ``None`` all.

    ``forward`` takes any length. The step form remembers ``buffer_length`` tokens: without a window, it is
    exact for as many steps.

    Attention over the whole past is PyTorch's own, but for narrow heads in float32 on a CPU. There
    :func:`rotary_attention` takes, forward, backward and projections together, 1.2 to 2.5 times less time at a head
    width of 8 and lengths of 32 to 1024 in batches of 8 or more, 1.1 to 1.3 times less at 16; from 32 on it is no better.
    """

    def __init__(self, dim: int, heads: int, window: int | None, buffer_length: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.buffer_length = buffer_length
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_bld: Tensor) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, length, dim)``; any length of at least 1."""
        length = x_bld.shape[1]
        window = self.window if self.window is not None and self.window < length else None
        if window is None and self._is_narrow(x_bld):
            return self._channel_major(x_bld)
        q, k, v = self._project(x_bld, torch.arange(length, device=x_bld.device))
        if window is None:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            mixed_blhd = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        else:
            mixed_blhd = sliding_attention(q, k, v, window)
        projected: Tensor = self.out(mixed_blhd.flatten(2))
        return projected

    def _is_narrow(self, x_bld: Tensor) -> bool:
        in_full = x_bld.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        return x_bld.device.type == "cpu" and in_full and x_bld.shape[-1] <= _NARROW * self.heads

    def _channel_major(self, x_bld: Tensor) -> Tensor:
        batch, length, dim = x_bld.shape
        qkv_cm = torch.addmm(self.qkv.bias[:, None], self.qkv.weight, x_bld.reshape(-1, dim).t())
        mixed_cbl = rotary_attention(qkv_cm.view(-1, batch, length), self.heads)
        projected: Tensor = self.out(mixed_cbl.flatten(1).t())
        return projected.view(batch, length, dim)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Empty key and value buffers ``(batch, heads, buffer_length, head_dim)`` and the position ``(batch,)``."""
        weight = self.qkv.weight
        dim = weight.shape[1]
        buffer = weight.new_zeros(batch_size, self.heads, self.buffer_length, dim // self.heads)
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
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=filled[:, None, None])
        return self.out(mixed.flatten(1)), {"k": keys, "v": values, "position": state["position"] + 1}

    def _project(self, x_bld: Tensor, positions: Tensor) -> list[Tensor]:
        """Queries, keys and values, each ``(batch, length, heads, head_dim)``."""
        dim = x_bld.shape[-1]
        qk, v = torch.split(self.qkv(x_bld), [2 * dim, dim], -1)
        q, k = rotate(qk, positions, dim // self.heads).chunk(2, -1)
        return [t.view(*t.shape[:2], self.heads, -1) for t in (q, k, v)]


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

    def visible_window(self) -> int | None:
        """Tokens that a query sees, itself included; ``None`` for the whole past."""
        return None

    def _visible(self, length: int) -> int:
        window = self.visible_window()
        return length if window is None else min(window, length)

    def num_params(self, dim: int, length: int) -> int:
        """Four square projections with biases."""
        return 4 * dim * dim + 4 * dim

    def state_size(self, dim: int, length: int) -> int:
        """A key and a value for every token that can be seen."""
        return 2 * self._visible(length) * dim

    def flops(self, dim: int, length: int) -> int:
        """Projections, scores and weighted values, over every pair that is scored."""
        window = self._visible(length)
        pairs = length * length if window == length else scored_pairs(length, window, dim // self.heads)
        return 8 * dim * dim * length + 4 * dim * pairs

    def build(self, dim: int, max_length: int) -> Attention:
        """See :meth:`LayerConfig.build`; ``max_length`` bounds the step form's buffers only."""
        self.validate(dim)
        return Attention(dim, self.heads, self.visible_window(), self._visible(max_length))


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
    state_knob: ClassVar[str] = "window"

    window: int = 33
    """Tokens that a query sees, itself included: the default is 32 to the left and itself."""

    def __post_init__(self) -> None:
        """Refuse fewer than one head or visible token."""
        positive(self, "heads", "window")

    def visible_window(self) -> int:
        """The knob ``window``."""
        return self.window


@register("mh-sliding-attention")
@dataclass(frozen=True)
class MultiHeadSlidingAttentionConfig(SlidingAttentionConfig):
    """:class:`SlidingAttentionConfig` with 16 heads."""

    heads: int = 16
