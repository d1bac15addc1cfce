"""Causal softmax attention of narrow heads on a CPU, rotary positions included.

Products of ``(positions, positions)`` with ``(positions, head width)`` are slow when the head is narrow: an inner loop
has 8 numbers. Channel-major, with ``(head width, positions)`` times ``(positions, positions)``, it has a whole row of them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.long_conv import blocks
from archlab.layers.ops.rotary import turn

_QUERIES = 32  # scored at once; the keys after all of them are left out


def rotary_attention(qkv_cbl: Tensor, heads: int) -> Tensor:
    """Rotated queries and keys at positions 0 ... L - 1, causal softmax, weighted values: (3 C, B, L) to (C, B, L).

    Queries, keys and values are float32 or float64; heads are ``C / heads`` wide, an even number.
    """
    return _RotaryAttention.apply(qkv_cbl, heads)  # type: ignore[no-untyped-call]


# Operators without a gradient of their own: the compiler and counters of operations see one of each, not its many products.
_FORWARD, _BACKWARD = "archlab::rotary_attention", "archlab::rotary_attention_backward"
torch.library.define(_FORWARD, "(Tensor qkv_cbl, int heads) -> Tensor")
torch.library.define(_BACKWARD, "(Tensor qkv_cbl, Tensor mixed_cbl, Tensor dmixed_cbl, int heads) -> Tensor")
_OPERATORS = torch.ops.archlab


@torch.library.impl(_FORWARD, "cpu")
def _forward(qkv_cbl: Tensor, heads: int) -> Tensor:
    mixed_cbl = _like_values(qkv_cbl, heads)
    walk = _Walk(qkv_cbl, heads, buffers=1)
    for q_bdl, k_bdl, v_bdl, mixed_bdl in walk.blocks(*walk.turned(), *walk.roles(mixed_cbl, 1)):
        for t, past in walk.queries:
            p_bts = walk.probabilities(q_bdl[..., t], k_bdl[..., past], t)
            mixed_bdl[..., t] = torch.bmm(v_bdl[..., past], p_bts.mT)
    return mixed_cbl


@torch.library.impl(_BACKWARD, "cpu")
def _backward(qkv_cbl: Tensor, mixed_cbl: Tensor, dmixed_cbl: Tensor, heads: int) -> Tensor:
    dqkv_cbl = torch.zeros_like(qkv_cbl)
    walk = _Walk(qkv_cbl, heads, buffers=2)
    (dmixed_hdbl,) = walk.roles(dmixed_cbl.contiguous(), 1)
    means_h1bl = (dmixed_hdbl * mixed_cbl.view_as(dmixed_hdbl)).sum(1, keepdim=True).neg_()
    dq_hdbl, dk_hdbl, dv_hdbl = walk.roles(dqkv_cbl, 3)
    every = (*walk.turned(), dmixed_hdbl, means_h1bl, dq_hdbl, dk_hdbl, dv_hdbl)
    for q_bdl, k_bdl, v_bdl, g_bdl, means_b1l, dq_bdl, dk_bdl, dv_bdl in walk.blocks(*every):
        for t, past in walk.queries:
            p_bts = walk.probabilities(q_bdl[..., t], k_bdl[..., past], t)
            dp_bts = torch.baddbmm(means_b1l[..., t].mT, g_bdl[..., t].mT, v_bdl[..., past], out=walk.buffer(1, p_bts.shape))
            ds_bts = dp_bts.mul_(p_bts)
            dq_bdl[..., t] = torch.bmm(k_bdl[..., past], ds_bts.mT)
            dk_bdl[..., past] += torch.bmm(q_bdl[..., t], ds_bts)
            dv_bdl[..., past] += torch.bmm(g_bdl[..., t], p_bts)
    for d_hdbl in (dq_hdbl, dk_hdbl):
        d_hdbl.copy_(turn(d_hdbl.mul_(walk.scale), backwards=True))
    return dqkv_cbl


class _Walk:
    """Through the heads, blocks of sequences and blocks of queries whose scores are in cache together.

    Scores are never stored: the backward pass computes them again.
    """

    def __init__(self, qkv_cbl: Tensor, heads: int, buffers: int) -> None:
        self.qkv_cbl, self.heads = qkv_cbl, heads
        self.batch, length = qkv_cbl.shape[1:]
        self.scale = (len(qkv_cbl) / (3 * heads)) ** -0.5
        starts = range(0, length, _QUERIES)
        self.queries = [(slice(start, start + _QUERIES), slice(0, start + _QUERIES)) for start in starts]
        self.scalars = min(_QUERIES, length) * length
        self.size = next(blocks(self.batch, buffers * self.scalars, qkv_cbl)).stop
        self.buffers = [qkv_cbl.new_empty(min(self.size, self.batch) * self.scalars) for _ in range(buffers)]
        self.mask_ll = qkv_cbl.new_full((length, length), float("-inf")).triu_(1)

    def roles(self, x_cbl: Tensor, count: int) -> tuple[Tensor, ...]:
        """Head by head, each (heads, head dim, B, L), as views."""
        return x_cbl.view(count, self.heads, -1, *x_cbl.shape[1:]).unbind(0)

    def turned(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values."""
        q_hdbl, k_hdbl, v_hdbl = self.roles(self.qkv_cbl, 3)
        return turn(q_hdbl), turn(k_hdbl), v_hdbl

    def blocks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Views (sequences, head dim, L) of tensors (heads, head dim, B, L), one head at a time."""
        for of_head in zip(*tensors, strict=True):
            yield from zip(*(x_dbl.transpose(0, 1).split(self.size) for x_dbl in of_head), strict=True)

    def buffer(self, index: int, shape: torch.Size) -> Tensor:
        """Memory that stays in cache from block to block."""
        return self.buffers[index][: shape.numel()].view(shape)

    def probabilities(self, q_bdt: Tensor, k_bds: Tensor, t: slice) -> Tensor:
        """Attention of the queries at positions ``t`` to the first keys, (sequences, queries, keys); in the first buffer."""
        mask_ts = self.mask_ll[t, : k_bds.shape[-1]]
        scores_bts = self.buffer(0, torch.Size((len(q_bdt), *mask_ts.shape)))
        torch.baddbmm(mask_ts, q_bdt.mT, k_bds, alpha=self.scale, out=scores_bts)
        return torch.softmax(scores_bts, -1, out=scores_bts)


class _RotaryAttention(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(qkv_cbl: Tensor, heads: int) -> Tensor:
        return _OPERATORS.rotary_attention(qkv_cbl, heads)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        qkv_cbl, ctx.heads = inputs
        ctx.save_for_backward(qkv_cbl, output)

    @staticmethod
    def backward(ctx: Any, dmixed_cbl: Tensor) -> tuple[Tensor, None]:
        return _OPERATORS.rotary_attention_backward(*ctx.saved_tensors, dmixed_cbl, ctx.heads), None


def _like_values(qkv_cbl: Tensor, heads: int) -> Tensor:
    return torch.empty_like(qkv_cbl[: len(qkv_cbl) // 3])


def _forward_stacked(info: Any, in_dims: tuple[int, None], qkv_cbl: Tensor, heads: int) -> tuple[Tensor, int]:
    mixed_cbl = _OPERATORS.rotary_attention(_merged(qkv_cbl, in_dims[0], info), heads)
    return mixed_cbl.unflatten(1, (info.batch_size, -1)), 1


def _backward_stacked(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
    *tensors, heads = inputs
    merged = (_merged(tensor, dim, info) for tensor, dim in zip(tensors, in_dims[:-1], strict=True))
    dqkv_cbl = _OPERATORS.rotary_attention_backward(*merged, heads)
    return dqkv_cbl.unflatten(1, (info.batch_size, -1)), 1


def _merged(x_cbl: Tensor, stacked: int | None, info: Any) -> Tensor:
    """The stacked axis as part of the batch: attention has no parameters."""
    x_cnbl = x_cbl[:, None].expand(-1, info.batch_size, -1, -1) if stacked is None else x_cbl.movedim(stacked, 1)
    return x_cnbl.flatten(1, 2)


torch.library.register_fake(_FORWARD, _like_values)
torch.library.register_fake(_BACKWARD, lambda qkv_cbl, mixed_cbl, dmixed_cbl, heads: torch.empty_like(qkv_cbl))
torch.library.register_vmap(_FORWARD, _forward_stacked)
torch.library.register_vmap(_BACKWARD, _backward_stacked)
