"""The delta rule: what a token writes depends on what the decayed state holds for it already.

``u[t] = r[t] + a[t] diag(exp(log_decay[t])) S[t-1]`` and ``S[t] = diag(exp(log_decay[t])) S[t-1] + b[t] u[t]``. Within a
chunk that is a triangular system (the UT transform, arXiv 2406.06484, section 3), between chunks a loop over matrix
states. With the writes ``u`` known, reading the state is :func:`archlab.layers.ops.decay.decayed_linear_attention`.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.chunks import num_chunks
from archlab.layers.ops.decayed_chunks import (
    cumulate,
    cut,
    decays,
    flops_across,
    gradients,
    join,
    keys_of,
    queries_of,
    scored_pairs,
    scores,
    sizes,
)
from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import no_autocast


class _DeltaRule(torch.autograd.Function):
    """The gradient of ``r`` solves the transposed system; the others are those of decayed linear attention to ``u``."""

    @staticmethod
    def forward(ctx: Any, r_blhv: Tensor, a_blhk: Tensor, b_blhk: Tensor, log_decay_blhk: Tensor, chunk: int) -> Tensor:
        r, reads, writes = (cut(x, chunk) for x in (r_blhv, a_blhk, b_blhk))
        decay = cumulate(log_decay_blhk, chunk)
        system = _system(reads, writes, decay)
        u = _solve(system, r, *_through_chunks(reads, writes, decay), upper=False)
        ctx.save_for_backward(u, reads, writes, decay, system)
        return join(u, torch.empty_like(r_blhv, memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, reads, writes, decay, system = ctx.saved_tensors
        with no_autocast(u):
            since, until, whole = _through_chunks(reads, writes, decay)
            dr = _solve(system.transpose(2, 3), cut(grads[0], u.shape[2]), until, since, whole, upper=True)
            dreads, dwrites, _, ddecay = gradients(reads, writes, u, decay, dr, own=False)
        outer = grads[0].shape[:3]
        return *(join(x, x.new_empty(*outer, x.shape[-1])) for x in (dr, dreads, dwrites, ddecay)), None


def delta_rule(r_blhv: Tensor, a_blhk: Tensor, b_blhk: Tensor, log_decay_blhk: Tensor, chunk: int) -> Tensor:
    """``u[t] = r[t] + a[t] D[t] S[t-1]`` with ``S[t] = D[t] S[t-1] + b[t] u[t]`` and ``D[t] = diag(exp(log_decay[t]))``.

    The delta rule of keys ``k``, values ``v`` and rates ``beta`` has ``r = beta v``, ``a = -beta k``, ``b = k``; keys
    must be of unit length, or the state may grow without bound.

    Args:
        r_blhv: what is written whatever the state (B, L, H, V).
        a_blhk: what is read of the state (B, L, H, K).
        b_blhk: where it is written (B, L, H, K).
        log_decay_blhk: logarithms of the decays (B, L, H, K), at most 0.
        chunk: positions a chunk, a power of two, at least ``BLOCK``; changes the cost only.

    Returns:
        What is written, ``u`` (B, L, H, V).
    """
    return apply(_DeltaRule, r_blhv, a_blhk, b_blhk, log_decay_blhk, chunk)


def delta_rule_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`delta_rule` for one sequence and head."""
    chunks = num_chunks(length, chunk)
    within = 2 * scored_pairs(chunk) * key_dim + chunk * chunk * (key_dim + value_dim)
    return chunks * within + flops_across(key_dim, value_dim, length, chunk)


def _system(reads: Tensor, writes: Tensor, decay: Tensor) -> Tensor:
    """The unit triangular matrices of all chunks, their diagonals left zero: minus what each position reads of each other."""
    chunk = reads.shape[2]
    system = reads.new_zeros(*reads.shape[:2], chunk, chunk)
    for size in sizes(chunk):
        since, until = decays(decay, size)
        found = scores(queries_of(reads, size) * since, keys_of(writes, size) * until, size, own=False)
        rows, columns = found.shape[1:]
        # Of the matrix cut into squares as large as a stretch, those on the diagonal; in them, below or all of it.
        squares = system.view(-1, chunk // size, size, chunk // size, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)
        squares[:, :, -rows:, :columns] = found.view(-1, chunk // size, rows, columns).neg()
    return system


def _through_chunks(reads: Tensor, writes: Tensor, decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reads decayed since their chunk began, writes decayed until it ends, and the decay from one end to the other."""
    return reads * decay.exp(), writes * (decay[:, :, -1:] - decay).exp_(), decay[:, :, -1, :, None].exp()


def _solve(system: Tensor, rhs: Tensor, reads: Tensor, writes: Tensor, whole: Tensor, upper: bool) -> Tensor:
    """Within all chunks at once, then from chunk to chunk, backwards if ``upper``."""
    solution = torch.linalg.solve_triangular(system, torch.cat([rhs, reads], -1), upper=upper, unitriangular=True)
    solved: Tensor = solution[..., : rhs.shape[-1]].contiguous()
    of_state = solution[..., rhs.shape[-1] :]
    order = range(len(rhs))
    state: Tensor | None = None
    for before, chunk in pairwise(reversed(order) if upper else order):
        written = writes[before].transpose(1, 2) @ solved[before]
        state = written if state is None else written.addcmul_(whole[before], state)
        solved[chunk] += of_state[chunk] @ state
    return solved
