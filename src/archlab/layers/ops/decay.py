"""Causal linear attention whose state decays channel by channel, over chunks, safe for every decay.

Within chunks scores, between them matrix states that follow a scan; :mod:`archlab.layers.ops.decayed_chunks` says
why nothing overflows. No output depends on a later token, not even in its rounding.

Decays of the values' channels are the same trilinear form. With ``D[t, s]`` the decays from ``s`` to ``t``, the inner product of
their outputs with numbers ``g`` is ``sum (g[t] D[t, s] v[s]) (k[s] q[t])``, that of queries ``g``, keys ``v`` and values ``k``
with ``q`` where keys decay. So the gradients are those of decaying keys, and that operation itself.
"""

import math
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.decayed_chunks import (
    BLOCK,
    add_or_set,
    cumulate,
    cut,
    decays,
    decays_across,
    flops_across,
    gradients,
    join,
    join_all,
    keys_of,
    num_chunks,
    outputs,
    queries_of,
    scored_pairs,
    scores,
    sizes,
    states,
)
from archlab.layers.ops.kernels import kernel
from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import no_autocast


def chunk_size(key_dim: int, value_dim: int, length: int) -> int:
    """Positions a chunk, a power of two: where scores within chunks and states between them cost about the same."""
    balanced = 1 << round(math.log2(math.sqrt(key_dim * value_dim)))
    return max(BLOCK, min(128, max(16, balanced), 1 << (length - 1).bit_length()))


class _DecayedLinearAttention(torch.autograd.Function):
    """Everything but the inputs and the accumulated decays is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blhk: Tensor, chunk: int) -> Tensor:
        q, k, v = (cut(x, chunk) for x in (q_blhk, k_blhk, v_blhv))
        b = cumulate(log_decay_blhk, chunk)
        ctx.save_for_backward(q, k, v, b)
        return join(outputs(q, k, v, b), torch.empty_like(v_blhv, memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, b = ctx.saved_tensors
        with no_autocast(q):
            found = gradients(q, k, v, b, cut(grads[0], q.shape[2]))
        return *join_all(found, grads[0]), None


def decayed_linear_attention(q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blhk: Tensor, chunk: int) -> Tensor:
    """``o[t] = q[t] S[t]``, (B, L, H, V), with ``S[t] = diag(exp(log_decay[t])) S[t-1] + k[t] v[t]`` (arXiv 2312.06635, eq. 3).

    Log decays are at most 0. A chunk has a power of two positions, at least ``BLOCK``, and changes the cost only.
    """
    if fla := kernel("chunk_gla", q_blhk):
        return fla(q=q_blhk, k=k_blhk, v=v_blhv, g=log_decay_blhk)
    return apply(_DecayedLinearAttention, q_blhk, k_blhk, v_blhv, log_decay_blhk, chunk)


def decayed_linear_attention_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`decayed_linear_attention` for one sequence and head."""
    chunks = num_chunks(length, chunk)
    return 2 * chunks * scored_pairs(chunk) * (key_dim + value_dim) + flops_across(key_dim, value_dim, length, chunk)


class _ValueDecayedLinearAttention(torch.autograd.Function):
    """Everything but the inputs and the accumulated decays is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blhv: Tensor, chunk: int) -> Tensor:
        q, k, v = (cut(x, chunk) for x in (q_blhk, k_blhk, v_blhv))
        b = cumulate(log_decay_blhv, chunk)
        out = torch.empty_like(v)
        for size in sizes(chunk):
            since, until = decays(b, size)
            weights = scores(queries_of(q, size), keys_of(k, size), size)
            add_or_set(queries_of(out, size), torch.bmm(weights, keys_of(v, size) * until).mul_(since), size)
        if len(q) > 1:
            since, until = decays_across(b)
            ends = states(v[:-1] * until, k[:-1], b)
            out[1:] += (q[1:] @ ends.transpose(2, 3)).mul_(since)
        ctx.save_for_backward(q, k, v, b)
        return join(out, torch.empty_like(v_blhv, memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, b = ctx.saved_tensors
        with no_autocast(q):
            dout = cut(grads[0], q.shape[2])
            dq = outputs(dout, v, k, b)
            _, dv, dk, db = gradients(dout, v, k, b, q)
        return *join_all((dq, dk, dv, db), grads[0]), None


def value_decayed_linear_attention(q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blhv: Tensor, chunk: int) -> Tensor:
    """``o[t] = q[t] S[t]``, (B, L, H, V), with ``S[t] = S[t-1] diag(exp(log_decay[t])) + k[t] v[t]``.

    Conventions and cost are those of :func:`decayed_linear_attention` at the same widths.
    """
    return apply(_ValueDecayedLinearAttention, q_blhk, k_blhk, v_blhv, log_decay_blhv, chunk)
