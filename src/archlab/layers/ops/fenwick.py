"""Linear attention whose past is kept in buckets of growing size, each read at its own weight (arXiv 2506.04761).

The buckets are those of a Fenwick tree. Where a sequence is cut into stretches of ``2**level`` tokens, the first half of
a stretch is the bucket of that level for all tokens of the second half. Level 0 is the token itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archlab.layers.ops.chunks import num_chunks


def num_levels(length: int) -> int:
    """Levels for sequences of ``length`` tokens: a token's own and one for each power of two below the length, at least one."""
    return max(1, length - 1).bit_length() + 1


def fenwick_linear_attention(
    q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blh: Tensor, weights_blhe: Tensor, chunk: int
) -> Tensor:
    """``o[t] = sum over levels e of weights[t, e] q[t] S_e[t]``, with ``S_e[t]`` the state of the tokens in bucket ``e``.

    A token ``s`` adds ``exp(sum of log_decay[s + 1 ... t]) k[s] v[s]`` to its bucket. For ``t``, with positions from 0, its
    bucket is the number of binary digits of ``s xor t``; beyond the last of the weights, the last.

    Within chunks scores, between them states: of chunks, pairs of chunks, and so on, O(L log L) in all.

    Args:
        q_blhk: queries (B, L, H, K).
        k_blhk: keys (B, L, H, K).
        v_blhv: values (B, L, H, V).
        log_decay_blh: logarithms of the decays (B, L, H), at most 0.
        weights_blhe: weight of each level (B, L, H, E).
        chunk: positions a chunk, a power of two; changes the cost only.

    Returns:
        The outputs (B, L, H, V).
    """
    length = q_blhk.shape[1]
    chunks = _num_halved_chunks(length, chunk)

    def cut(x_blhd: Tensor) -> Tensor:
        x_bhld = F.pad(x_blhd.transpose(1, 2), (0, 0, 0, chunks * chunk - length))
        return x_bhld.reshape(*x_bhld.shape[:2], chunks, chunk, -1)

    q, k, v, weights = (cut(x) for x in (q_blhk, k_blhk, v_blhv, weights_blhe))
    # In float64, for differences of sums over the whole sequence.
    decay = cut(log_decay_blh.double()[..., None])
    decay = decay.flatten(2).cumsum(2).view_as(decay)
    out = _within(q, k, v, decay, weights) + _between(q, k, v, decay, weights)
    return out.flatten(2, 3)[:, :, :length].transpose(1, 2)


def fenwick_linear_attention_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`fenwick_linear_attention` for one sequence and head."""
    chunks = _num_halved_chunks(length, chunk)
    within = 2 * chunks * chunk * chunk * (key_dim + value_dim)
    written_or_read = chunks * chunk * key_dim * value_dim
    return within + (1 + chunks.bit_length()) * written_or_read


def _num_halved_chunks(length: int, chunk: int) -> int:
    """Chunks that cover the length, rounded up to a power of two."""
    return 1 << (num_chunks(length, chunk) - 1).bit_length()


def _within(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, weights: Tensor) -> Tensor:
    """What queries read of their own chunk."""
    position = torch.arange(q.shape[3], device=q.device)
    future = position > position[:, None]
    level = sum((position ^ position[:, None]) >= 1 << digit for digit in range(len(position).bit_length()))
    level = torch.as_tensor(level).masked_fill(future, 0).clamp(max=weights.shape[-1] - 1)
    weight = weights.gather(-1, level.expand(*weights.shape[:3], -1, -1))
    # Masked before the exponential, which could overflow there.
    since = (decay - decay.mT).masked_fill(future, -torch.inf).exp().to(q.dtype)
    return (q @ k.mT * since * weight) @ v


def _between(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, weights: Tensor) -> Tensor:
    """What queries read of the chunks before theirs, from first halves of ever longer stretches of chunks."""
    outer, (chunks, chunk) = q.shape[:2], q.shape[2:4]
    out = torch.zeros_like(v)
    end = decay[:, :, :, -1:]
    states = (k * (end - decay).exp().to(k.dtype)).mT @ v
    for level in range(chunk.bit_length(), (chunk * chunks).bit_length()):
        half = (1 << level) // (2 * chunk)
        # (B, H, stretches, chunks of the half, positions, width), of the second halves.
        queries, since, weight = (x.view(*outer, -1, 2, half, *x.shape[3:])[:, :, :, 1] for x in (q, decay, weights))
        middle, last = end.view(*outer, -1, 2, half)[..., -1:, None].unbind(3)
        first, second = states.view(*outer, -1, 2, *states.shape[3:]).unbind(3)
        factor = (since - middle[..., None]).exp().to(q.dtype) * weight[..., min(level, weights.shape[-1] - 1), None]
        read = (queries * factor).flatten(3, 4) @ first
        out = out + F.pad(read[:, :, :, None], (0, 0, 0, 0, 1, 0)).view_as(out)
        states = (last - middle).exp().to(q.dtype) * first + second
    return out
