"""Causal linear attention whose state decays channel by channel, over chunks, safe for every decay.

A chunk is halved again and again. The scores of a second half against its first half are products of
queries that have decayed since the middle and keys that decay until the middle: both exponents are at
most zero. Only blocks of eight positions are factored around a middle that some keys come after; there a
log decay below ``-20`` a step (``e**-20``, beneath the resolution of float32) is taken as ``-20``, which
keeps every exponent in range. Between chunks the matrix states follow a diagonal scan.
"""

import math

import torch
from torch import Tensor

from archlab.layers.ops.chunks import cut, num_chunks
from archlab.layers.ops.scan import diagonal_scan

BLOCK = 8
"""Positions of a block that is factored around its middle."""


def chunk_size(key_dim: int, value_dim: int) -> int:
    """Positions a chunk, a power of two: where scores within chunks and states between them cost about the same."""
    return min(128, max(16, 1 << round(math.log2(math.sqrt(key_dim * value_dim)))))


def floor_of_log_decay(dtype: torch.dtype) -> float:
    """The least log decay a step that a block can hold: half a block of it stays within the dtype's exponents."""
    return -(math.log(torch.finfo(dtype).max) - 8) / (BLOCK // 2)


def decayed_linear_attention(q_nlk: Tensor, k_nlk: Tensor, v_nlv: Tensor, log_decay_nlk: Tensor, chunk: int) -> Tensor:
    """``o[t] = q[t] S[t]`` with ``S[t] = diag(exp(log_decay[t])) S[t-1] + k[t] v[t]`` (arXiv 2312.06635, equation 4).

    Args:
        q_nlk: queries (N, L, K), N counting sequences and heads together.
        k_nlk: keys (N, L, K).
        v_nlv: values (N, L, V).
        log_decay_nlk: logarithms of the decays (N, L, K), at most 0.
        chunk: positions a chunk, a power of two, at least 8; changes the cost only.

    Returns:
        The outputs (N, L, V).
    """
    batch, length, _ = q_nlk.shape
    chunks = num_chunks(length, chunk)
    q, k, v, g = (cut(x, chunk) for x in (q_nlk, k_nlk, v_nlv, log_decay_nlk))
    b = g.clamp(min=floor_of_log_decay(g.dtype)).cumsum(1)
    out = _within(q, k, v, b)
    if chunks > 1:
        total = b[:, -1:]
        added = torch.bmm((k * (total - b).exp()).transpose(1, 2), v)
        decays, inputs = (x.view(batch, chunks, *x.shape[1:]).transpose(0, 1) for x in (total.exp().transpose(1, 2), added))
        states = diagonal_scan(decays[:-1], inputs[:-1])
        before = torch.cat([torch.zeros_like(states[:1]), states]).transpose(0, 1).flatten(0, 1)
        out = torch.baddbmm(out, q * b.exp(), before)
    return out.view(batch, chunks * chunk, -1)[:, :length]


def _within(q: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """Outputs of (M, C, ...) independent stretches, ``b`` the log decay accumulated along each."""
    size = q.shape[1]
    if size <= BLOCK:
        centred = b - b[:, (size - 1) // 2, None]
        scores = torch.bmm(q * centred.exp(), (k * (-centred).exp()).transpose(1, 2)).tril()
        return torch.bmm(scores, v)
    half = size // 2
    middle = b[:, half - 1 : half]
    scores = torch.bmm(q[:, half:] * (b[:, half:] - middle).exp(), (k[:, :half] * (middle - b[:, :half]).exp()).transpose(1, 2))
    across = torch.bmm(scores, v[:, :half])
    out = _within(*(x.reshape(-1, half, x.shape[-1]) for x in (q, k, v, b))).view(-1, 2, half, v.shape[-1])
    return torch.stack([out[:, 0], out[:, 1] + across], 1).flatten(1, 2)


def decayed_linear_attention_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`decayed_linear_attention` for one sequence and head."""
    chunks = num_chunks(length, chunk)
    halvings = int(math.log2(chunk // BLOCK))
    pairs = chunk * BLOCK + sum(chunk * chunk >> (level + 2) for level in range(halvings))
    states = 4 * chunk * chunks * key_dim * value_dim + 2 * (chunks - 2) * key_dim * value_dim if chunks > 1 else 0
    return 2 * chunks * pairs * (key_dim + value_dim) + states
