"""Causal linear attention over chunks: quadratic within a chunk, a matrix state between chunks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archlab.layers.ops.decayed_chunks import num_chunks
from archlab.layers.ops.kernels import kernel


def chunk_size(key_dim: int, value_dim: int, length: int) -> int:
    """Positions a chunk: where scores within a chunk and states between chunks cost about the same."""
    return min(length, max(16, 1 << math.ceil(math.log2(2 * math.sqrt(key_dim * value_dim)))))


def linear_attention(q_nlp: Tensor, k_nlp: Tensor, v_nlv: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """``numerator[t] = sum_{s<=t} (q[t] . k[s]) v[s]``, (N, L, V), and ``denominator[t] = sum_{s<=t} q[t] . k[s]``, (N, L, 1).

    N counts sequences and heads together; ``chunk``, positions a chunk, changes the cost only.
    """
    if fla := kernel("chunk_linear_attn", q_nlp):
        numerator = fla(q=q_nlp[:, :, None], k=k_nlp[:, :, None], v=v_nlv[:, :, None], normalize=False)[:, :, 0]
        return numerator, (q_nlp * k_nlp.cumsum(1)).sum(-1, keepdim=True)
    batch, length, _ = q_nlp.shape
    q, k, v = (F.pad(x, (0, 0, 0, -length % chunk)).reshape(-1, chunk, x.shape[-1]) for x in (q_nlp, k_nlp, v_nlv))
    scores = torch.bmm(q, k.transpose(1, 2)).tril_()
    numerator, denominator = torch.bmm(scores, v), scores.sum(-1, keepdim=True)
    chunks = num_chunks(length, chunk)
    if chunks > 1:
        state, total = torch.bmm(k.transpose(1, 2), v), k.sum(1)[..., None]
        numerator = torch.baddbmm(numerator, q, _before(state, chunks))
        denominator = torch.baddbmm(denominator, q, _before(total, chunks))
    return tuple(x.reshape(batch, chunks * chunk, -1)[:, :length] for x in (numerator, denominator))  # type: ignore[return-value]


def _before(x: Tensor, chunks: int) -> Tensor:
    """The sums over the earlier chunks of the same sequence, (N * chunks, ...) to the same shape."""
    per_sequence = x.view(-1, chunks, *x.shape[1:])
    # Shifted, not subtracted: a difference would carry rounding from a chunk's own, later tokens.
    return torch.cat([torch.zeros_like(per_sequence[:, :1]), per_sequence[:, :-1].cumsum(1)], 1).view_as(x)


def linear_attention_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`linear_attention` for one sequence and head."""
    chunks = num_chunks(length, chunk)
    scores = 2 * chunk * chunk * (key_dim + value_dim)
    states = (2 * chunk * key_dim * (2 * value_dim + 1)) if chunks > 1 else 0
    return chunks * (scores + states)
