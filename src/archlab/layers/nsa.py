"""Native sparse attention: every query attends to summaries of blocks, to the few blocks that these point to, and to a window."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.errors import ArchlabError
from archlab.fields import Count, at_least
from archlab.layers.contract import EvenDivisor, LayerConfig, nearest_divisor
from archlab.layers.ops.precision import at_least_float32
from archlab.layers.ops.rotary import rotate
from archlab.layers.ops.sliding_attention import scored_pairs, sliding_attention
from archlab.layers.registry import register

BRANCHES = 3
"""Compressed, selected, window."""
FIXED = 3
"""Blocks that every query selects: the first one, that before its own, and its own."""


@register("nsa")
class NSAConfig(LayerConfig):
    """Native sparse attention (arXiv 2502.11089, section 3), with blocks of one size that do not overlap.

    Knobs: ``heads``, each of even width; ``kv_heads``, heads of keys and values, for equal groups of heads; ``block``, tokens of
    a block; ``selected``, blocks that a query attends to, the first and the last two among them; ``window``, tokens that it
    sees in any case, itself included.
    """

    paper: ClassVar[str] = "arXiv 2502.11089"
    is_attention: ClassVar[bool] = True

    heads: EvenDivisor = 16
    kv_heads: Count = 4
    block: Count = 8
    selected: Annotated[int, at_least(FIXED)] = 6
    window: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads % self.kv_heads:
            raise ArchlabError(
                f"nsa(kv_heads={self.kv_heads}): {self.heads} heads do not split into {self.kv_heads} equal groups; "
                f"the nearest that fits is kv_heads={nearest_divisor(self.heads, self.kv_heads)}"
            )

    def _kv_dim(self, dim: int) -> int:
        """Width of the keys of one branch, and of its values."""
        return dim // self.heads * self.kv_heads

    def _weights(self, dim: int) -> int:
        """Entries of the maps of single tokens."""
        return dim * (2 * dim + 2 * BRANCHES * self._kv_dim(dim) + BRANCHES * self.heads)

    def _of_block(self, dim: int) -> int:
        """Entries of the maps that compress the keys or the values of a block."""
        return (self.block + 1) * (dim // self.heads) ** 2

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + BRANCHES * self.heads + 2 * (self._of_block(dim) + 2 * dim // self.heads)

    def matrix_state(self, dim: int, length: int) -> int:
        return 2 * self._kv_dim(dim) * (length // self.block + length + min(self.window, length))

    def state_size(self, dim: int, length: int) -> int:
        # Adds the keys and values of the block that is not whole yet.
        return self.matrix_state(dim, length) + 2 * self._kv_dim(dim) * (self.block - 1)

    def _flops(self, dim: int, length: int, pairs: int) -> int:
        """With so many pairs of queries and keys in the branches that select and slide."""
        blocks = length // self.block
        compressed = 4 * self.kv_heads * blocks * self._of_block(dim) + 4 * length * blocks * dim
        return 2 * length * self._weights(dim) + compressed + 4 * pairs * dim

    def flops(self, dim: int, length: int) -> int:
        in_window = scored_pairs(length, self.window, dim // self.heads) if self.window < length else length**2
        return self._flops(dim, length, length**2 + in_window)

    def active_flops(self, dim: int, length: int) -> int:
        return self._flops(dim, length, length * (min(self.selected * self.block, length) + min(self.window, length)))

    def build(self, dim: int, max_length: int) -> "NSA":
        self.validate(dim)
        return NSA(dim, self, max_length)


class NSA(nn.Module):
    """``o_t = sum_c sigmoid(W_c x_t) A_c(q_t)`` for each head, over three attentions, each with keys and values of its own.

    - *compressed*: over the blocks that are whole, each with one key and one value, ``W2 gelu(W1 [k_1, ..., k_block])``;
    - *selected*: over the tokens of the ``selected`` blocks to which the first gives most weight, in the sum over a group of
      heads, the first block and the last two always among them;
    - *window*: over the last ``window`` tokens.

    Queries and keys are rotated by position. The compressed attention of a query before the end of the first block is zero.
    ``forward`` takes any length, and computes the scores of all pairs; the step form remembers ``buffer_length`` tokens.
    """

    def __init__(self, dim: int, sizes: NSAConfig, buffer_length: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = sizes.heads, sizes.kv_heads, dim // sizes.heads
        self.block, self.selected, self.window = sizes.block, sizes.selected, sizes.window
        self.buffer_length = buffer_length
        kv_dim = self.kv_heads * self.head_dim
        self.split = [dim, BRANCHES * kv_dim, BRANCHES * kv_dim]
        self.qkv_proj = nn.Linear(dim, sum(self.split), bias=False)
        self.gate_proj = nn.Linear(dim, BRANCHES * self.heads)
        sizes_of_map = self.block * self.head_dim, self.head_dim
        self.compress = nn.ModuleList(
            nn.Sequential(nn.Linear(*sizes_of_map), nn.GELU(), nn.Linear(self.head_dim, self.head_dim)) for _ in range(2)
        )
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def _project(self, x_bld: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries (B, L, H, width); keys and values (branches, 2, B, L, G, width); gates (branches, B, L, H)."""
        queries, keys, values = self.split
        qk, v = torch.split(self.qkv_proj(x_bld), [queries + keys, values], -1)
        q, k = torch.split(rotate(qk, positions, self.head_dim), [queries, keys], -1)
        kv = torch.stack([k, v]).view(2, *x_bld.shape[:2], BRANCHES, self.kv_heads, self.head_dim).movedim(3, 0)
        gates = self.gate_proj(x_bld).sigmoid().view(*x_bld.shape[:2], BRANCHES, self.heads).movedim(2, 0)
        return q.view(*q.shape[:2], self.heads, self.head_dim), kv, gates

    def _compressed(self, kv: Tensor) -> Tensor:
        """Keys and values (2, B, G, blocks, width) of blocks, from those of their tokens (2, B, blocks * block, G, width)."""
        blocks = kv.reshape(*kv.shape[:2], -1, self.block, *kv.shape[3:]).movedim(-2, 2).flatten(-2)
        return torch.stack([of_block(part) for of_block, part in zip(self.compress, blocks.unbind(), strict=True)])

    def _attend_to_blocks(self, q: Tensor, kv: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """The compressed attention (B, H, L, width) of queries (B, H, L, width) at positions (B or 1, L), and the weight that
        each group of heads gives to each block (B, G, L, blocks)."""
        grouped = q.reshape(len(q), self.kv_heads, -1, *q.shape[2:]) * self.head_dim**-0.5
        k, v = kv[:, :, :, None].unbind()
        ends = self.block * torch.arange(1, k.shape[-2] + 1, device=q.device)
        whole = (ends <= position[..., None] + 1)[:, None, None]
        scores = at_least_float32(grouped @ k.mT)
        # Not minus infinity: a query that sees no block has no softmax.
        weights = scores.masked_fill(~whole, torch.finfo(scores.dtype).min).softmax(-1) * whole
        return (weights.to(v.dtype) @ v).flatten(1, 2), weights.detach().sum(2)

    def _selection(self, weights: Tensor, position: Tensor, blocks: int) -> Tensor:
        """Which of the blocks each group of heads selects (B, G, L, blocks), given the weights of those that may be whole."""
        index = torch.arange(blocks, device=weights.device)
        own = (position // self.block)[:, None, :, None]
        always = (index == 0) | (index == own) | (index == own - 1)
        worth = F.pad(weights, (0, blocks - weights.shape[-1])).masked_fill(index > own, -1.0).masked_fill(always, torch.inf)
        chosen = worth.topk(min(self.selected, blocks), -1).indices
        return torch.zeros_like(worth, dtype=torch.bool).scatter(-1, chosen, True)

    def _attend_to_tokens(self, q: Tensor, kv: Tensor, seen: Tensor) -> Tensor:
        """Attention (B, H, L, width) to the tokens ``seen`` (B, G, L, tokens), of keys and values (2, B, G, tokens, width)."""
        shared = self.heads // self.kv_heads
        k, v = (part.repeat_interleave(shared, 1) for part in kv.unbind())
        # Groups lie along the batch, so that their heads share a mask.
        q, k, v = (part.reshape(-1, shared, *part.shape[2:]) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.flatten(0, 1)[:, None])
        return mixed.view(-1, self.heads, *mixed.shape[2:])

    def forward(self, x_bld: Tensor) -> Tensor:
        length = x_bld.shape[1]
        position = torch.arange(length, device=x_bld.device)
        q_blhd, (of_blocks, of_tokens, of_window), gates = self._project(x_bld, position)
        q, blocks = q_blhd.transpose(1, 2), -(-length // self.block)
        compressed = self._compressed(of_blocks[:, :, : length // self.block * self.block])
        first, weights = self._attend_to_blocks(q, compressed, position[None])
        selection = self._selection(weights, position[None], blocks).repeat_interleave(self.block, -1)[..., :length]
        second = self._attend_to_tokens(q, of_tokens.transpose(2, 3), selection & (position <= position[:, None]))
        window = min(self.window, length)
        k, v = of_window.repeat_interleave(self.heads // self.kv_heads, 3)
        third = sliding_attention(q_blhd, k, v, window)
        mixed = torch.stack([first.transpose(1, 2), second.transpose(1, 2), third])
        return self.out_proj((gates[..., None] * mixed).sum(0).flatten(2).to(x_bld.dtype))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        weight = self.out_proj.weight
        sizes = {
            "blocks": self.buffer_length // self.block,
            "begun": self.block - 1,
            "tokens": self.buffer_length,
            "window": min(self.window, self.buffer_length),
        }
        state = {name: weight.new_zeros(batch_size, 2, self.kv_heads, size, self.head_dim) for name, size in sizes.items()}
        return state | {"position": torch.zeros(batch_size, dtype=torch.int64, device=weight.device)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token ``(batch, dim)``; tokens and blocks are kept at their positions, window and begun block the newest last."""
        position = state["position"]
        # The tokens of a step lie along the position axis while they are projected.
        q, kv, gates = self._project(x_bd[None], position)
        q, gates = q.permute(1, 2, 0, 3), gates.permute(0, 2, 3, 1)
        of_blocks, of_tokens, of_window = kv.permute(0, 3, 1, 4, 2, 5)
        block = torch.cat([state["begun"], of_blocks], 3)
        compressed = self._compressed(block.permute(1, 0, 3, 2, 4)).transpose(0, 1)
        blocks = _placed(state["blocks"], compressed, torch.where((position + 1) % self.block == 0, position // self.block, -1))
        tokens = _placed(state["tokens"], of_tokens, position)
        window = torch.cat([state["window"], of_window], 3)[:, :, :, 1:]
        at = position[:, None]
        first, weights = self._attend_to_blocks(q, blocks.transpose(0, 1), at)
        selection = self._selection(weights, at, -(-self.buffer_length // self.block)).repeat_interleave(self.block, -1)
        index = torch.arange(self.buffer_length, device=x_bd.device)
        seen = selection[..., : self.buffer_length] & (index <= at)[:, None, None]
        second = self._attend_to_tokens(q, tokens.transpose(0, 1), seen)
        age = torch.arange(window.shape[3] - 1, -1, -1, device=x_bd.device)
        filled = (age <= at)[:, None, None].expand(-1, self.kv_heads, -1, -1)
        third = self._attend_to_tokens(q, window.transpose(0, 1), filled)
        mixed = (gates[..., None] * torch.stack([first, second, third])).sum(0)
        new = {"blocks": blocks, "begun": block[:, :, :, 1:], "tokens": tokens, "window": window, "position": position + 1}
        return self.out_proj(mixed.flatten(1).to(x_bd.dtype)), new


def _placed(buffer: Tensor, new: Tensor, position: Tensor) -> Tensor:
    """The buffer (B, 2, G, size, width) with what is new (B, 2, G, 1, width) at a position, which is -1 for nowhere."""
    index = torch.arange(buffer.shape[3], device=buffer.device)
    return torch.where((index == position[:, None])[:, None, None, :, None], new, buffer)
