"""Linear attention whose past is kept in buckets of growing size, each read at its own weight (arXiv 2506.04761).

The buckets are those of a Fenwick tree. Where a sequence is cut into stretches of ``2**level`` tokens, the first half of
a stretch is the bucket of that level for all tokens of the second half. Level 0 is the token itself.

Within chunks that takes scores, between them states: of chunks, of pairs of chunks, and so on, O(L log L) in all. Every
position holds what it would read of a state at the beginning of its stretch, every stretch how it passes a state on; both
grow with the stretches, by products. Tensors are (B, H, chunks, positions, width).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from archlab.layers.ops.decayed_chunks import num_chunks


def num_levels(length: int) -> int:
    """Levels for sequences of ``length`` tokens: a token's own and one for each power of two below the length, at least one."""
    return max(1, length - 1).bit_length() + 1


def fenwick_linear_attention(
    q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blh: Tensor, weights_blhe: Tensor, chunk: int
) -> Tensor:
    """``o[t] = sum over levels e of weights[t, e] q[t] S_e[t]``, with ``S_e[t]`` the state of the tokens in bucket ``e``.

    A token ``s`` adds ``exp(sum of log_decay[s + 1 ... t]) k[s] v[s]`` to its bucket. For ``t``, with positions from 0, its
    bucket is the number of binary digits of ``s xor t``; beyond the last of the weights, the last.

    Log decays are at most 0. A chunk has a power of two positions, and changes the cost only. The outputs are (B, L, H, V).
    """
    q, k, v, log_decay, weights = _cut(chunk, q_blhk, k_blhk, v_blhv, log_decay_blh[..., None], weights_blhe)
    since, until, mask = _decays(log_decay)
    out = (q @ k.mT * mask * _of_pairs(weights)) @ v
    out = out + _between(q * since, since[..., -1:, :], (k * until).mT @ v, weights, torch.mul)
    return _join(out, v_blhv)


def fenwick_linear_attention_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`fenwick_linear_attention` for one sequence and head."""
    chunks = _num_halved_chunks(length, chunk)
    within = 2 * chunk * chunk * (key_dim + value_dim) + 2 * chunk * key_dim * value_dim
    return chunks * within + _num_halvings(chunks) * chunks * chunk * key_dim * value_dim


def fenwick_delta_rule(
    q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, beta_blh: Tensor, log_decay_blh: Tensor, weights_blhe: Tensor, chunk: int
) -> Tensor:
    """:func:`fenwick_linear_attention` under the delta rule: a token also erases in all buckets what its key finds there.

    ``S_e[t] = a (1 - beta[t] k[t] k[t]) S_e[t-1]`` with ``a = exp(log_decay[t])``, to which the token's own bucket adds
    ``beta[t] k[t] v[t]``. Keys are of unit length.
    """
    q, k, v, beta, log_decay, weights = _cut(
        chunk, q_blhk, k_blhk, v_blhv, beta_blh[..., None], log_decay_blh[..., None], weights_blhe
    )
    since, until, mask = _decays(log_decay)
    # The UT transform (arXiv 2406.06484, section 3): what a chunk's tokens write, given the values and the state before it.
    system = (beta * (k @ k.mT) * mask).tril(-1)
    given = torch.cat([torch.diag_embed(beta[..., 0]), -beta * since * k], -1)
    of_values, of_state = torch.linalg.solve_triangular(system, given, upper=False, unitriangular=True).split(
        [chunk, k.shape[-1]], -1
    )
    scores, kept = q @ k.mT * mask, (k * until).mT
    out = (scores @ of_values * _of_pairs(weights)) @ v
    transitions = torch.diag_embed(since[..., -1, :].expand(*q.shape[:3], q.shape[-1])) + kept @ of_state
    out = out + _between(q * since + scores @ of_state, transitions, kept @ (of_values @ v), weights, torch.matmul)
    return _join(out, v_blhv)


def fenwick_delta_rule_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`fenwick_delta_rule` for one sequence and head."""
    chunks = _num_halved_chunks(length, chunk)
    solved = chunk * chunk * (chunk + key_dim)
    within = solved + 2 * chunk * chunk * (3 * key_dim + chunk + 2 * value_dim) + 2 * chunk * key_dim * (key_dim + value_dim)
    read = _num_halvings(chunks) * chunks * chunk * key_dim * value_dim
    passed_on = max(0, _num_halvings(chunks) - 1) * chunks * chunk * key_dim * key_dim
    return chunks * within + read + passed_on + 2 * max(0, chunks - 2) * key_dim * key_dim * (key_dim + value_dim)


def _num_halved_chunks(length: int, chunk: int) -> int:
    """Chunks that cover the length, rounded up to a power of two."""
    return 1 << (num_chunks(length, chunk) - 1).bit_length()


def _num_halvings(chunks: int) -> int:
    return chunks.bit_length() - 1


def _cut(chunk: int, *tensors_blhd: Tensor) -> list[Tensor]:
    """(B, L, H, D) to (B, H, chunks, chunk, D), zeros after the last position."""
    batch, length, heads = tensors_blhd[0].shape[:3]
    chunks = _num_halved_chunks(length, chunk)
    padded_bhld = (F.pad(x.transpose(1, 2), (0, 0, 0, chunks * chunk - length)) for x in tensors_blhd)
    return [x.reshape(batch, heads, chunks, chunk, -1) for x in padded_bhld]


def _join(x: Tensor, like_blhd: Tensor) -> Tensor:
    return x.flatten(2, 3)[:, :, : like_blhd.shape[1]].transpose(1, 2)


def _decays(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the beginning of the chunk to each position, from there to the end, and between positions, 0 to earlier ones."""
    accumulated = log_decay.double().cumsum(-2)  # for differences of sums
    future = torch.ones(log_decay.shape[-2], log_decay.shape[-2], dtype=torch.bool, device=log_decay.device).triu(1)
    # Masked before the exponential, which could overflow there.
    between = (accumulated - accumulated.mT).masked_fill(future, -torch.inf)
    since, until, mask = (x.exp().to(log_decay.dtype) for x in (accumulated, accumulated[..., -1:, :] - accumulated, between))
    return since, until, mask


def _of_pairs(weights: Tensor) -> Tensor:
    """The weight at which each position reads each position of its chunk; any number for later ones."""
    position = torch.arange(weights.shape[-2], device=weights.device)
    level = sum((position ^ position[:, None]) >= 1 << digit for digit in range(len(position).bit_length()))
    level = torch.as_tensor(level).clamp(max=weights.shape[-1] - 1)
    return weights.gather(-1, level.expand(*weights.shape[:3], -1, -1))


def _between(
    queries: Tensor, transitions: Tensor, states: Tensor, weights: Tensor, through: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Values that are read of earlier chunks, by queries of the states at the beginning of a chunk.

    A chunk changes a state by ``transitions``, matrices (..., K, K) or numbers (..., 1, 1), whose product is ``through``, and
    adds ``states`` (..., K, V) to it.
    """
    outer, (chunks, chunk) = queries.shape[:2], queries.shape[2:4]
    out = queries.new_zeros(*queries.shape[:-1], states.shape[-1])
    whole = queries, transitions, states
    for level in range(chunk.bit_length(), (chunk * chunks).bit_length()):
        halves = (x.view(*outer, -1, 2, *x.shape[3:]).unbind(3) for x in whole)
        (before, queries), (first_transition, transition), (first_state, state) = halves
        weight = weights[..., min(level, weights.shape[-1] - 1)].view(*outer, -1, 2, queries.shape[3], 1)[:, :, :, 1]
        read = (weight * queries) @ first_state
        out = out + F.pad(read[:, :, :, None], (0, 0, 0, 0, 1, 0)).view_as(out)
        if queries.shape[2] == 1:
            break
        whole = (
            torch.cat([before, through(queries, first_transition)], 3),
            through(transition, first_transition),
            through(transition, first_state) + state,
        )
    return out
