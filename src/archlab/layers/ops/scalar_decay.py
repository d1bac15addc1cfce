"""Causal linear attention whose state decays at one rate a head, over chunks, safe for every decay.

With one rate, the decay from a key to a query is a factor of their score: within chunks scores are multiplied by a
matrix of decays whose exponents are at most zero (structured masked attention, arXiv 2405.21060, section 4). Faster
than :mod:`archlab.layers.ops.decay`, which takes a rate for every channel of the keys; between chunks both are alike.
"""

from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.decayed_chunks import (
    add_gradients_across,
    cumulate,
    cut,
    decays_across,
    decays_within,
    flops_across,
    gradients_of_log_decays,
    join,
    join_all,
    num_chunks,
    states,
)
from archlab.layers.ops.kernels import kernel
from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import no_autocast


class _ScalarDecayedLinearAttention(torch.autograd.Function):
    """The scores and their decays are kept for the backward pass, states are computed again."""

    @staticmethod
    def forward(ctx: Any, q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blh: Tensor, chunk: int) -> Tensor:
        q, k, v = (cut(x, chunk) for x in (q_blhk, k_blhk, v_blhv))
        b = cumulate(log_decay_blh[..., None], chunk)
        mask = decays_within(b)
        weights = (q @ k.transpose(2, 3)).mul_(mask)
        out = weights @ v
        if len(q) > 1:
            since, until = decays_across(b)
            out[1:] += (q[1:] * since) @ states(k[:-1] * until, v[:-1], b)
        ctx.save_for_backward(q, k, v, b, mask, weights)
        return join(out, torch.empty_like(v_blhv, memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, b, mask, weights = ctx.saved_tensors
        with no_autocast(q):
            found = _gradients(q, k, v, b, mask, weights, cut(grads[0], q.shape[2]))
        return *_joined(found, grads[0]), None


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, b: Tensor, mask: Tensor, weights: Tensor, dout: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of queries, keys, values and log decays, all in chunks."""
    dscores = (dout @ v.transpose(2, 3)).mul_(mask)
    dq, dk, dv = dscores @ k, dscores.transpose(2, 3) @ q, weights.transpose(2, 3) @ dout
    add_gradients_across(q, k, v, b, dout, dq, dk, dv)
    return dq, dk, dv, gradients_of_log_decays((q * dq).sum(-1, keepdim=True).sub_((k * dk).sum(-1, keepdim=True)))


def _joined(found: tuple[Tensor, ...], like_blhv: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, db = join_all(found, like_blhv)
    return dq, dk, dv, db[..., 0]


def scalar_decay_gradients(
    q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blh: Tensor, dout_blhv: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of :func:`scalar_decayed_linear_attention`, given those of its outputs, without computing these."""
    q, k, v, dout = (cut(x, chunk) for x in (q_blhk, k_blhk, v_blhv, dout_blhv))
    b = cumulate(log_decay_blh[..., None], chunk)
    mask = decays_within(b)
    return _joined(_gradients(q, k, v, b, mask, (q @ k.transpose(2, 3)).mul_(mask), dout), dout_blhv)


def scalar_decayed_linear_attention(q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blh: Tensor, chunk: int) -> Tensor:
    """``o[t] = q[t] S[t]``, (B, L, H, V), with ``S[t] = exp(log_decay[t]) S[t-1] + k[t] v[t]`` (arXiv 2405.21060).

    Log decays are at most 0; ``chunk``, positions a chunk, changes the cost only.
    """
    if fla := kernel("chunk_simple_gla", q_blhk):
        return fla(q=q_blhk, k=k_blhk, v=v_blhv, g=log_decay_blh)
    return apply(_ScalarDecayedLinearAttention, q_blhk, k_blhk, v_blhv, log_decay_blh, chunk)


def scalar_decayed_linear_attention_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`scalar_decayed_linear_attention` for one sequence and head."""
    within = 2 * num_chunks(length, chunk) * chunk * chunk * (key_dim + value_dim)
    return within + flops_across(key_dim, value_dim, length, chunk)
