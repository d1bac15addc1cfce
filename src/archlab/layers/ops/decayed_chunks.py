"""Decays within and between chunks, safe at every rate, for the recurrences of decaying matrix states.

A chunk is halved again and again. The scores of a second half against its first half are products of
queries that have decayed since the middle and keys that decay until the middle: both exponents are at
most zero. Only within the last blocks, of eight positions, do keys grow and queries shrink, about a
power of two that leaves both half of the dtype's range; there a decay beneath the resolution of the
dtype is taken as that resolution. Whatever the decays, nothing overflows.

Tensors are (chunks, sequences and heads, positions, width), but a chunk's halves and blocks (what
``queries_of`` and ``keys_of`` give) are (stretches, positions, width). ``b`` is the logarithm to base
two of the decay since the beginning of each chunk: powers of two cost a quarter of powers of e on a CPU.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from archlab.layers.ops.scan import accumulate

BLOCK = 8
"""Positions of a block, in which keys grow."""


def num_chunks(length: int, chunk: int) -> int:
    """Chunks that cover ``length`` positions, the last one perhaps in part."""
    return -(-length // chunk)


def floor_of_log_decay(dtype: torch.dtype) -> float:
    """The least log decay a step: over a block it takes 5/8 of the dtype's exponents, -16 in float32."""
    return -1.25 * math.log(torch.finfo(dtype).max) / (BLOCK - 1)


def cumulate(log_decay_blhk: Tensor, chunk: int) -> Tensor:
    """Log decays (B, L, H, K), floored, accumulated from the beginning of each chunk and to base two."""
    return cut(log_decay_blhk, chunk).clamp_(min=floor_of_log_decay(log_decay_blhk.dtype)).mul_(math.log2(math.e)).cumsum(2)


def cut(x_blhd: Tensor, chunk: int) -> Tensor:
    """(B, L, H, D) to (chunks, B * H, chunk, D), zeros after the last position."""
    return cut_all([x_blhd], chunk)[:, :, 0]


def cut_all(given: Sequence[Tensor], chunk: int) -> Tensor:
    """(B, L, H, D) each to (chunks, B * H, stack, chunk, D) together, zeros after the last position."""
    batch, length, heads, dim = given[0].shape
    chunks = given[0].new_empty(num_chunks(length, chunk), batch, heads, len(given), chunk, dim)
    chunks[-1, ..., (length - 1) % chunk + 1 :, :] = 0
    for index, x_blhd in enumerate(given):
        for inside, outside in _parts(chunks[:, :, :, index], x_blhd):
            inside.copy_(outside)
    return chunks.flatten(1, 2)


def join(chunks: Tensor, x_blhd: Tensor) -> Tensor:
    """Fill (B, L, H, D) from (chunks, B * H, chunk, D)."""
    batch, _, heads, _ = x_blhd.shape
    for inside, outside in _parts(chunks.view(-1, batch, heads, *chunks.shape[2:]), x_blhd):
        outside.copy_(inside)
    return x_blhd


def join_all(found: Iterable[Tensor], like: Tensor) -> tuple[Tensor, ...]:
    """Gradients in chunks as (B, L, H, their width), with the first axes of ``like``."""
    return tuple(join(x, x.new_empty(*like.shape[:3], x.shape[-1])) for x in found)


def _parts(chunks: Tensor, x_blhd: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of the same positions, whole chunks and then the rest, in (chunks, B, H, chunk, D) and in (B, L, H, D)."""
    batch, length, heads, dim = x_blhd.shape
    chunk = chunks.shape[3]
    whole, rest = divmod(length, chunk)
    yield chunks[:whole], x_blhd[:, : whole * chunk].view(batch, whole, chunk, heads, dim).permute(1, 0, 3, 2, 4)
    if rest:
        yield chunks[-1, :, :, :rest], x_blhd[:, whole * chunk :].transpose(1, 2)


def block_size(least_log_decay: float, chunk: int) -> int:
    """Positions over which keys may grow, where no log decay is below ``least_log_decay``: a power of two, at most the chunk."""
    block = BLOCK
    while block < chunk and (2 * block - 1) * least_log_decay >= -1.25 * math.log(torch.finfo(torch.float32).max):
        block *= 2
    return block


def sizes(chunk: int, block: int = BLOCK) -> Iterator[int]:
    """Blocks, then what is halved: twice a block, four times, ..., the chunk."""
    return (block << level for level in range((chunk // block).bit_length()))


def decays_within(b: Tensor) -> Tensor:
    """Decays (..., chunk, chunk) from each position (last axis) to each position of its chunk, 0 to earlier ones.

    ``b``: logarithms of the decays up to each position of a chunk, (..., chunk, 1).
    """
    # Clamped before the exponential, which could overflow for later positions.
    return (b - b.mT).clamp_(max=0).exp2_().mul_(b.new_ones(b.shape[-2], b.shape[-2]).tril_())


def without_future(pairs: Tensor, block: int) -> Tensor:
    """(..., rows, W, columns), in place with 0 where a column is after its row or in another block, whatever was there.

    By bits: on a CPU ten times faster than :meth:`torch.Tensor.masked_fill_`.
    """
    writers, columns = pairs.shape[-2:]
    bits = torch.int32 if pairs.dtype == torch.float32 else torch.int64
    past = torch.full((block, block), -1, dtype=bits, device=pairs.device).tril_()
    kept = torch.kron(torch.eye(columns // block, dtype=bits, device=pairs.device), past)[:, None].expand(-1, writers, -1)
    pairs.view(bits).bitwise_and_(kept.contiguous())
    return pairs


def scored_pairs(chunk: int, block: int = BLOCK) -> int:
    """Query-key pairs of a chunk whose score is computed, masked ones included."""
    return sum(chunk * block if size == block else chunk * size // 4 for size in sizes(chunk, block))


def queries_of(x: Tensor, size: int, block: int = BLOCK) -> Tensor:
    """Positions of queries: the second half of every stretch of ``size`` positions, and all of a block."""
    return x.view(-1, size, x.shape[-1]) if size == block else x.view(-1, 2, size // 2, x.shape[-1])[:, 1]


def keys_of(x: Tensor, size: int, block: int = BLOCK) -> Tensor:
    """Positions of keys: the first half of every stretch of ``size`` positions, and all of a block."""
    return x.view(-1, size, x.shape[-1]) if size == block else x.view(-1, 2, size // 2, x.shape[-1])[:, 0]


def decays(b: Tensor, size: int, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Factors of queries and keys, by which scores decay from the key's position to the query's."""
    queries, keys = queries_of(b, size, block), keys_of(b, size, block)
    if size > block:
        middle = keys[:, -1:]
        return (queries - middle).exp2_(), (middle - keys).exp2_()
    # Squared after the exponential, for which a block's whole decay may be too small, and in powers of two to be exact.
    root = math.ldexp(1.0, round(math.log2(torch.finfo(b.dtype).max)) // 4)
    since = (queries - keys[:, :1]).mul_(0.5).exp2_().mul_(root).square_()
    return since, since.reciprocal()


def scores(queries: Tensor, keys: Tensor, size: int) -> Tensor:
    """Inner products, within blocks of no later keys."""
    pairs = torch.bmm(queries, keys.transpose(1, 2))
    return pairs.tril_() if size == BLOCK else pairs


def add_or_set(target: Tensor, value: Tensor, size: int) -> None:
    """Blocks come first and set every position; what is halved adds."""
    if size == BLOCK:
        target.copy_(value)
    else:
        target.add_(value)


def decays_across(b: Tensor) -> tuple[Tensor, Tensor]:
    """Decays from the end of the last chunk to each query, and from each key to the end of its chunk."""
    return b[1:].exp2(), (b[:-1, :, -1:] - b[:-1]).exp2_()


def _decays_of_states(b: Tensor) -> Tensor:
    """Decays over each chunk but the first and the last, which no state goes through."""
    return b[1:-1, :, -1, :, None].exp2()


def states(keys: Tensor, values: Tensor, b: Tensor) -> Tensor:
    """States at the end of each chunk but the last."""
    ends = keys.transpose(2, 3) @ values
    accumulate(_decays_of_states(b), ends)
    return ends


def outputs(q: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """Decayed linear attention, queries, keys and decays of one width."""
    out = torch.empty_like(v)
    for size in sizes(q.shape[2]):
        since, until = decays(b, size)
        weights = scores(queries_of(q, size) * since, keys_of(k, size) * until, size)
        add_or_set(queries_of(out, size), torch.bmm(weights, keys_of(v, size)), size)
    if len(q) > 1:
        since, until = decays_across(b)
        out[1:] += (q[1:] * since) @ states(k[:-1] * until, v[:-1], b)
    return out


def gradients(q: Tensor, k: Tensor, v: Tensor, b: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of decayed linear attention with respect to queries, keys, values and log decays.

    Those of the log decays need no chunks: a log decay weighs what later queries read of earlier keys, so its
    gradient is the sum over this and later positions of ``q * dq - k * dk`` (arXiv 2312.06635, section 4).
    """
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    for size in sizes(q.shape[2]):
        since, until = decays(b, size)
        queries, keys = queries_of(q, size) * since, keys_of(k, size) * until
        weights = scores(queries, keys, size)
        dweights = scores(queries_of(dout, size), keys_of(v, size), size)
        add_or_set(queries_of(dq, size), torch.bmm(dweights, keys).mul_(since), size)
        add_or_set(keys_of(dk, size), torch.bmm(dweights.transpose(1, 2), queries).mul_(until), size)
        add_or_set(keys_of(dv, size), torch.bmm(weights.transpose(1, 2), queries_of(dout, size)), size)
    add_gradients_across(q, k, v, b, dout, dq, dk, dv)
    return dq, dk, dv, gradients_of_log_decays((q * dq).addcmul_(k, dk, value=-1))


def add_gradients_across(q: Tensor, k: Tensor, v: Tensor, b: Tensor, dout: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    """Add to ``dq``, ``dk`` and ``dv`` what comes from the states between chunks."""
    if len(q) == 1:
        return
    since, until = decays_across(b)
    queries, keys = q[1:] * since, k[:-1] * until
    ends = states(keys, v[:-1], b)
    dends = queries.transpose(2, 3) @ dout[1:]
    accumulate(_decays_of_states(b), dends, backwards=True)
    dq[1:].addcmul_(dout[1:] @ ends.transpose(2, 3), since)
    dk[:-1].addcmul_(v[:-1] @ dends.transpose(2, 3), until)
    dv[:-1] += keys @ dends


def gradients_of_log_decays(db: Tensor) -> Tensor:
    """From gradients of the accumulated log decays, ``q * dq - k * dk``, in place."""
    if db.is_cpu:
        for after, step in zip(db.unbind(2)[:0:-1], db.unbind(2)[-2::-1], strict=True):
            step += after
        for after, chunk in zip(db.unbind(0)[:0:-1], db.unbind(0)[-2::-1], strict=True):
            chunk += after[:, :1]
    else:
        db.copy_(db.flip(2).cumsum(2).flip(2))
        db[:-1] += db[1:, :, :1].flip(0).cumsum(0).flip(0)
    db[0, :, 0] = 0  # nothing is there to decay
    return db


def flops_across(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of writing, passing on and reading states between chunks, for one sequence and head."""
    chunks = num_chunks(length, chunk)
    return 4 * (chunks - 1) * chunk * key_dim * value_dim + 2 * max(0, chunks - 2) * key_dim * value_dim
