"""The delta rule: what a token writes depends on what the decayed state holds for it already.

Within a chunk the writes solve a unit triangular system (the UT transform, arXiv 2406.06484, section 3), whose inverse is
multiplied with the right-hand sides of all chunks at once; between chunks a loop goes over matrix states. Queries and
reads are stacked for their scores, and so are the writes of both kinds (:mod:`archlab.layers.ops.chunk_scores`).
"""

import math
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.chunk_scores import scores, scores_gradients, tile_size
from archlab.layers.ops.decayed_chunks import (
    block_size,
    cumulate,
    cut_all,
    gradients_of_log_decays,
    join,
    num_chunks,
    scored_pairs,
    sizes,
)
from archlab.layers.ops.kernels import kernel
from archlab.layers.ops.members import apply_by_sequences
from archlab.layers.ops.precision import no_autocast

Pair = tuple[Tensor, Tensor]
_EPS = 1e-6


class _DeltaRule(torch.autograd.Function):
    """Scores, inverses and states between chunks are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, a: Tensor, b: Tensor, r: Tensor | None, k: Tensor | None, v: Tensor | None, *rest: Any
    ) -> Tensor:
        log_decay, chunk, ctx.block = rest
        decay = cumulate(log_decay, chunk)
        # Queries read what their token writes, reads only what was there before.
        reads, writes = cut_all([q, a], chunk), cut_all([b] if k is None else [b, k], chunk)
        values = cut_all([x for x in (r, v) if x is not None] * (1 + (v is not None)), chunk)
        weights = scores(reads, writes, decay, ctx.block)
        inverse = _inverse(weights[..., 1, :, 0, :].contiguous())
        if v is not None:
            values[:, :, 0] = weights[..., 1, :, 1, :] @ values[:, :, 1]
        since = reads[1:] * decay[1:].exp2()[:, :, None]
        states, passed = _forward_states(inverse, since[:, :, 1], writes, values, decay)
        out = weights[:, :, 0].flatten(3, 4) @ values.flatten(2, 3)
        if len(states):
            out[1:].flatten(0, 1).baddbmm_(since[:, :, 0].flatten(0, 1), states.flatten(0, 1))
        ctx.save_for_backward(reads, writes, values, decay, weights, inverse, states, passed)
        return join(out, out.new_empty(*q.shape[:3], out.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        reads, *saved = ctx.saved_tensors
        with no_autocast(reads):
            found = _gradients(cut_all([grads[0]] * 2, reads.shape[3]), ctx.block, reads, *saved)
        dq, da, db, dr, dk, dv, ddecay = (
            None if x is None else join(x, x.new_empty(*grads[0].shape[:3], x.shape[-1])) for x in found
        )
        return (dq, da, db, *((dr, None, None) if dk is None else (None, dk, dv)), ddecay, None, None)


def _forward_states(inverse: Tensor, since: Tensor, writes: Tensor, values: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Solve for the writes, in place of the right-hand sides in ``values``.

    ``since`` are the reads of all chunks but the first, decayed since these began. A chunk passes a state on through a matrix
    and adds to it what it writes of its own, so that one product is left from chunk to chunk. Returned are the states at the
    end of each chunk but the last, and the matrices of those after the first.
    """
    values[:, :, 0] = inverse @ values[:, :, 0]
    if len(values) == 1:
        return values[:0], values[:0]
    of_states = inverse[1:] @ since
    written, whole = _until_the_end(writes, decay)
    states = written.flatten(2, 3).mT @ values[:-1].flatten(2, 3)
    passed = written[1:, :, 0].mT @ of_states[:-1]
    passed.diagonal(dim1=2, dim2=3).add_(whole[1:])
    for through, before, state in zip(passed, states, states[1:], strict=False):
        state.baddbmm_(through, before)
    values[1:, :, 0] += of_states @ states
    return states, passed


def _until_the_end(writes: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Writes decayed until their chunk ends, and the decays of states over whole chunks, for all chunks but the last."""
    decay = decay[:-1]
    return writes[:-1] * (decay[:, :, -1:] - decay).exp2_()[:, :, None], decay[:, :, -1].exp2()


def _gradients(
    dread: Tensor,
    block: int,
    reads: Tensor,
    writes: Tensor,
    values: Tensor,
    decay: Tensor,
    weights: Tensor,
    inverse: Tensor,
    states: Tensor,
    passed: Tensor,
) -> tuple[Tensor | None, ...]:
    """Gradients of queries, reads, writes, ``r``, the keys and values beside (or None), and log decays.

    ``dread`` are those of the outputs, twice; the second become those of ``r``.
    """
    across = len(reads) > 1
    pulled = (weights[:, :, 0].flatten(3, 4).mT @ dread[:, :, 0]).view_as(values)
    du = dread[:, :, 1]
    du.copy_(inverse.mT @ pulled[:, :, 0])
    if across:
        since = decay[1:].exp2()[:, :, None]
        written, _ = _until_the_end(writes, decay)
        dstates = (reads[1:] * since).flatten(2, 3).mT @ dread[1:].flatten(2, 3)
        for through, after, state in zip(passed.unbind()[::-1], dstates.unbind()[::-1], dstates.unbind()[-2::-1], strict=False):
            state.baddbmm_(through.mT, after)
        du[:-1] += inverse[:-1].mT @ (written[:, :, 0] @ dstates)
    dscores = (dread.flatten(2, 3) @ values.flatten(2, 3).mT).view_as(weights)
    dreads, dwrites = scores_gradients(dscores, reads, writes, decay, block)
    if across:
        dreads[1:].addcmul_((dread[1:].flatten(2, 3) @ states.mT).view_as(dreads[1:]), since)
        until = (decay[:-1, :, -1:] - decay[:-1]).exp2_()[:, :, None]
        dwrites[:-1].addcmul_((values[:-1].flatten(2, 3) @ dstates.mT).view_as(dwrites[:-1]), until)
    ddecay = (reads * dreads).sum(2) - (writes * dwrites).sum(2)
    ddecay = gradients_of_log_decays(ddecay if decay.shape[-1] > 1 else ddecay.sum(-1, keepdim=True))
    dk, dv = None, None
    if writes.shape[2] == 2:
        dk = dwrites[:, :, 1]
        dv = pulled[:, :, 1] + weights[..., 1, :, 1, :].mT @ du
        if across:
            dv[:-1] += written[:, :, 1] @ dstates
    return dreads[:, :, 0], dreads[:, :, 1], dwrites[:, :, 0], du, dk, dv, ddecay


def delta_rule(
    q_blhk: Tensor,
    a_blhk: Tensor,
    b_blhk: Tensor,
    log_decay: Tensor,
    chunk: int,
    *,
    r_blhv: Tensor | None = None,
    kv: Pair | None = None,
    least_log_decay: float = float("-inf"),
) -> Tensor:
    """``o[t] = q[t] S[t]`` with ``S[t] = D[t] S[t-1] + b[t] u[t] + k[t] v[t]``, ``u[t] = r[t] + a[t] D[t] S[t-1]``.

    ``D[t] = diag(exp(log_decay[t]))``. The delta rule of keys ``k``, values ``v`` and rates ``beta`` has ``r = beta v``,
    ``a = -beta k``, ``b = k`` and nothing beside; keys must be of unit length, or the state may grow without bound.

    Args:
        q_blhk, a_blhk, b_blhk: queries, what is read of the state to be written again, and where that is written.
        log_decay: logarithms of the decays, at most 0: (B, L, H, K), or (B, L, H, 1), which is faster.
        chunk: positions a chunk, a power of two, at least ``BLOCK``; changes the cost only.
        r_blhv: what is written with it whatever the state; this or ``kv``.
        kv: what is written beside it, keys (B, L, H, K) and values (B, L, H, V).
        least_log_decay: no entry of ``log_decay`` is below it; the nearer to 0, the faster.

    Returns:
        The outputs (B, L, H, V).
    """
    k, v = kv or (None, None)
    if kv and (fla := kernel("chunk_dplr_delta_rule", q_blhk)):
        bound = {} if math.isinf(least_log_decay) else {"lower_bound": least_log_decay}
        # It reads the state before the decay.
        return fla(q=q_blhk, k=k, v=v, a=a_blhk * log_decay.exp(), b=b_blhk, gk=log_decay.expand_as(a_blhk), **bound)
    block = block_size(least_log_decay, chunk)
    return apply_by_sequences(_DeltaRule, q_blhk, a_blhk, b_blhk, r_blhv, k, v, log_decay, chunk, block)


def gated_delta_rule(q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, beta_blh1: Tensor, log_decay: Tensor, chunk: int) -> Tensor:
    """``o[t] = q[t] S[t]`` with ``S[t] = D[t] S[t-1] + k[t] beta[t] (v[t] - k[t] D[t] S[t-1])``, a case of :func:`delta_rule`.

    Keys are of unit length, ``beta`` are rates, all else is as there.
    """
    by_head = log_decay.shape[-1] == 1
    if fla := kernel("chunk_gated_delta_rule" if by_head else "chunk_kda", q_blhk):
        return fla(q=q_blhk, k=k_blhk, v=v_blhv, g=log_decay[..., 0] if by_head else log_decay, beta=beta_blh1[..., 0])
    return delta_rule(q_blhk, -beta_blh1 * k_blhk, k_blhk, log_decay, chunk, r_blhv=beta_blh1 * v_blhv)


def delta_rule_flops(
    key_dim: int,
    value_dim: int,
    length: int,
    chunk: int,
    decay_dim: int = 1,
    beside: bool = False,
    least_log_decay: float = float("-inf"),
) -> int:
    """Floating-point operations of :func:`delta_rule` for one sequence and head; ``beside`` with ``kv``."""
    chunks, writers, block = num_chunks(length, chunk), 1 + beside, block_size(least_log_decay, chunk)
    pairs = chunk * chunk if decay_dim == 1 else scored_pairs(chunk, block) + chunk * (tile_size(block, chunk) - block)
    inverse = sum(2 * chunk * half**2 for half in sizes(chunk // 2, 2))
    within = 4 * writers * pairs * key_dim + inverse + 2 * chunk * chunk * (beside + 1 + writers) * value_dim
    across = (chunks - 1) * chunk * key_dim * (chunk + (2 + writers) * value_dim)
    passed_on = max(0, chunks - 2) * key_dim * key_dim * (chunk + value_dim)
    return chunks * within + 2 * (across + passed_on)


def _inverse(system: Tensor) -> Tensor:
    """Inverses of the identity less strictly triangular matrices (..., n, n), ``n`` a power of two, from their halves'."""
    size = system.shape[-1]
    inverse = torch.zeros_like(system, memory_format=torch.contiguous_format)
    inverse.diagonal(dim1=-2, dim2=-1).fill_(1)
    for half in (1 << level for level in range(size.bit_length() - 1)):
        blocks, lower = (_on_diagonal(x, 2 * half) for x in (inverse, system))
        joined = lower[..., half:, :half]
        if half > 1:
            joined = blocks[..., half:, half:] @ joined @ blocks[..., :half, :half]
        blocks[..., half:, :half] = joined
    return inverse


def _on_diagonal(x: Tensor, size: int) -> Tensor:
    """Views of the blocks on the diagonals of (..., n, n): (..., n / size, size, size)."""
    count = x.shape[-1] // size
    return x.view(*x.shape[:-2], count, size, count, size).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def unit_length(x: Tensor) -> Tensor:
    """``x`` over its Euclidean norm along the last axis; smooth at zero, and vectors near zero come out shorter."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _EPS)
