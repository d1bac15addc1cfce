"""Causal linear attention whose state decays channel by channel, over chunks, safe for every decay.

A chunk is halved again and again. The scores of a second half against its first half are products of
queries that have decayed since the middle and keys that decay until the middle: both exponents are at
most zero. Only within the last blocks, of eight positions, do keys grow and queries shrink, about a
power of two that leaves both half of the dtype's range; there a decay beneath the resolution of the
dtype is taken as that resolution. Between chunks the matrix states follow a scan. Whatever the decays,
nothing overflows, and no output depends on a later token, not even in its rounding.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.chunks import num_chunks
from archlab.layers.ops.scan import accumulate

BLOCK = 8
"""Positions of a block, in which keys grow."""


def chunk_size(key_dim: int, value_dim: int, length: int) -> int:
    """Positions a chunk, a power of two: where scores within chunks and states between them cost about the same."""
    balanced = 1 << round(math.log2(math.sqrt(key_dim * value_dim)))
    return max(BLOCK, min(128, max(16, balanced), 1 << (length - 1).bit_length()))


def floor_of_log_decay(dtype: torch.dtype) -> float:
    """The least log decay a step: over a block it takes 5/8 of the dtype's exponents, -16 in float32."""
    return -1.25 * math.log(torch.finfo(dtype).max) / (BLOCK - 1)


class _DecayedLinearAttention(torch.autograd.Function):
    """Everything but the inputs and the accumulated decays is computed again in the backward pass.

    The gradient of the log decays needs no chunks: a log decay weighs what later queries read of earlier keys,
    so its gradient is the sum over this and later positions of ``q * dq - k * dk`` (arXiv 2312.06635, section 4).
    Tensors inside are (chunks, sequences and heads, positions, width).
    """

    @staticmethod
    def forward(ctx: Any, q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blhk: Tensor, chunk: int) -> Tensor:
        q, k, v, b = (_cut(x, chunk) for x in (q_blhk, k_blhk, v_blhv, log_decay_blhk))
        b = b.clamp_(min=floor_of_log_decay(b.dtype)).cumsum(2)
        out = torch.empty_like(v)
        for size in _sizes(chunk):
            since, until = _decays(b, size)
            scores = _scores(_queries(q, size) * since, _keys(k, size) * until, size)
            _assign(_queries(out, size), torch.bmm(scores, _keys(v, size)), size)
        if len(q) > 1:
            since, until = _decays_across(b)
            out[1:] += (q[1:] * since) @ _states(k[:-1] * until, v[:-1], b)
        ctx.save_for_backward(q, k, v, b)
        return _join(out, torch.empty_like(v_blhv, memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, b = ctx.saved_tensors
        dout = _cut(grads[0], q.shape[2])
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for size in _sizes(q.shape[2]):
            since, until = _decays(b, size)
            queries, keys = _queries(q, size) * since, _keys(k, size) * until
            scores = _scores(queries, keys, size)
            dscores = _scores(_queries(dout, size), _keys(v, size), size)
            _assign(_queries(dq, size), torch.bmm(dscores, keys).mul_(since), size)
            _assign(_keys(dk, size), torch.bmm(dscores.transpose(1, 2), queries).mul_(until), size)
            _assign(_keys(dv, size), torch.bmm(scores.transpose(1, 2), _queries(dout, size)), size)
        if len(q) > 1:
            since, until = _decays_across(b)
            queries, keys = q[1:] * since, k[:-1] * until
            states = _states(keys, v[:-1], b)
            dstates = queries.transpose(2, 3) @ dout[1:]
            accumulate(_decays_of_states(b)[::-1], dstates.unbind(0)[::-1])
            dq[1:].addcmul_(dout[1:] @ states.transpose(2, 3), since)
            dk[:-1].addcmul_(v[:-1] @ dstates.transpose(2, 3), until)
            dv[:-1] += keys @ dstates
        db = (q * dq).addcmul_(k, dk, value=-1)
        for after, step in pairwise([step for one in db.unbind(0) for step in one.unbind(1)][:0:-1]):
            step += after
        db[0, :, 0] = 0  # nothing is there to decay
        whole = grads[0].shape[:3]
        return *(_join(x, x.new_empty(*whole, x.shape[-1])) for x in (dq, dk, dv, db)), None


def decayed_linear_attention(q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blhk: Tensor, chunk: int) -> Tensor:
    """``o[t] = q[t] S[t]`` with ``S[t] = diag(exp(log_decay[t])) S[t-1] + k[t] v[t]`` (arXiv 2312.06635, equation 3).

    Args:
        q_blhk: queries (B, L, H, K).
        k_blhk: keys (B, L, H, K).
        v_blhv: values (B, L, H, V).
        log_decay_blhk: logarithms of the decays (B, L, H, K), at most 0.
        chunk: positions a chunk, a power of two, at least ``BLOCK``; changes the cost only.

    Returns:
        The outputs (B, L, H, V).
    """
    out: Tensor = _DecayedLinearAttention.apply(q_blhk, k_blhk, v_blhv, log_decay_blhk, chunk)  # type: ignore[no-untyped-call]
    return out


def decayed_linear_attention_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`decayed_linear_attention` for one sequence and head."""
    chunks = num_chunks(length, chunk)
    pairs = sum(chunk * BLOCK if size == BLOCK else chunk * size // 4 for size in _sizes(chunk))
    states = 4 * (chunks - 1) * chunk * key_dim * value_dim + 2 * max(0, chunks - 2) * key_dim * value_dim
    return 2 * chunks * pairs * (key_dim + value_dim) + states


def _sizes(chunk: int) -> Iterator[int]:
    """Blocks, then what is halved: twice a block, four times, ..., the chunk."""
    return (BLOCK << level for level in range((chunk // BLOCK).bit_length()))


def _queries(x: Tensor, size: int) -> Tensor:
    """Of every stretch of ``size`` positions the second half, of blocks all: where queries are."""
    return x.view(-1, size, x.shape[-1]) if size == BLOCK else x.view(-1, 2, size // 2, x.shape[-1])[:, 1]


def _keys(x: Tensor, size: int) -> Tensor:
    """Of every stretch of ``size`` positions the first half, of blocks all: where keys are."""
    return x.view(-1, size, x.shape[-1]) if size == BLOCK else x.view(-1, 2, size // 2, x.shape[-1])[:, 0]


def _decays(b: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What to multiply queries and keys with, so that scores decay from the key's position to the query's."""
    queries, keys = _queries(b, size), _keys(b, size)
    if size > BLOCK:
        middle = keys[:, -1:]
        return (queries - middle).exp_(), (middle - keys).exp_()
    # Squared after the exponential, for which a block's whole decay may be too small, and in powers of two to be exact.
    root = math.ldexp(1.0, round(math.log2(torch.finfo(b.dtype).max)) // 4)
    since = (queries - keys[:, :1]).mul_(0.5).exp_().mul_(root).square_()
    return since, since.reciprocal()


def _scores(queries: Tensor, keys: Tensor, size: int) -> Tensor:
    scores = torch.bmm(queries, keys.transpose(1, 2))
    return scores.tril_() if size == BLOCK else scores


def _assign(target: Tensor, value: Tensor, size: int) -> None:
    """Blocks come first and set every position; what is halved adds."""
    if size == BLOCK:
        target.copy_(value)
    else:
        target.add_(value)


def _decays_across(b: Tensor) -> tuple[Tensor, Tensor]:
    """Decays from the end of the last chunk to each query, and from each key to the end of its chunk."""
    return b[1:].exp(), (b[:-1, :, -1:] - b[:-1]).exp_()


def _decays_of_states(b: Tensor) -> tuple[Tensor, ...]:
    """Decays over each chunk but the first and the last, which no state goes through."""
    return b[1:-1, :, -1, :, None].exp().unbind(0)


def _states(keys: Tensor, values: Tensor, b: Tensor) -> Tensor:
    """States at the end of each chunk but the last."""
    states = keys.transpose(2, 3) @ values
    accumulate(_decays_of_states(b), states.unbind(0))
    return states


def _cut(x_blhd: Tensor, chunk: int) -> Tensor:
    """(B, L, H, D) to (chunks, B * H, chunk, D), zeros after the last position."""
    batch, length, heads, dim = x_blhd.shape
    chunks = x_blhd.new_empty(num_chunks(length, chunk), batch, heads, chunk, dim)
    chunks[-1, :, :, (length - 1) % chunk + 1 :] = 0
    for inside, outside in _parts(chunks, x_blhd):
        inside.copy_(outside)
    return chunks.flatten(1, 2)


def _join(chunks: Tensor, x_blhd: Tensor) -> Tensor:
    """Fill (B, L, H, D) from (chunks, B * H, chunk, D)."""
    batch, _, heads, _ = x_blhd.shape
    for inside, outside in _parts(chunks.view(-1, batch, heads, *chunks.shape[2:]), x_blhd):
        outside.copy_(inside)
    return x_blhd


def _parts(chunks: Tensor, x_blhd: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of the same positions, whole chunks and then the rest, in (chunks, B, H, chunk, D) and in (B, L, H, D)."""
    batch, length, heads, dim = x_blhd.shape
    chunk = chunks.shape[3]
    whole, rest = divmod(length, chunk)
    yield chunks[:whole], x_blhd[:, : whole * chunk].view(batch, whole, chunk, heads, dim).permute(1, 0, 3, 2, 4)
    if rest:
        yield chunks[-1, :, :, :rest], x_blhd[:, whole * chunk :].transpose(1, 2)
