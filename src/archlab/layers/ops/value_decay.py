"""Causal linear attention whose values decay, channel by channel: the other side of :mod:`archlab.layers.ops.decay`.

Both are one trilinear form: with ``D[t, s]`` the decays from ``s`` to ``t``, the inner product of this operation's
outputs with numbers ``g`` is ``sum (g[t] D[t, s] v[s]) (k[s] q[t])``, that of queries ``g``, keys ``v`` and values
``k`` there with ``q``. So its gradients are that operation's, and that operation itself.
"""

from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.decayed_chunks import (
    add_or_set,
    cumulate,
    cut,
    decays,
    decays_across,
    gradients,
    join,
    keys_of,
    outputs,
    queries_of,
    scores,
    sizes,
    states,
)
from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import no_autocast


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
        whole = grads[0].shape[:3]
        with no_autocast(q):
            dout = cut(grads[0], q.shape[2])
            dq = outputs(dout, v, k, b)
            _, dv, dk, db = gradients(dout, v, k, b, q)
        return *(join(x, x.new_empty(*whole, x.shape[-1])) for x in (dq, dk, dv, db)), None


def value_decayed_linear_attention(q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, log_decay_blhv: Tensor, chunk: int) -> Tensor:
    """``o[t] = q[t] S[t]``, (B, L, H, V), with ``S[t] = S[t-1] diag(exp(log_decay[t])) + k[t] v[t]``.

    Conventions and cost are those of :func:`archlab.layers.ops.decay.decayed_linear_attention` at the same widths.
    """
    return apply(_ValueDecayedLinearAttention, q_blhk, k_blhk, v_blhv, log_decay_blhv, chunk)
