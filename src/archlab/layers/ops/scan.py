"""The first-order linear recurrence, element by element."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply


def accumulate(decays: Sequence[Tensor], steps: Sequence[Tensor]) -> None:
    """Turn ``steps`` into states in place, outside autograd: ``steps[t + 1] += decays[t] * steps[t]``, in order."""
    for decay, previous, current in zip(decays, steps, steps[1:], strict=False):
        current.addcmul_(decay, previous)


class _DiagonalScan(torch.autograd.Function):
    """Forward and reversed loops of in-place multiply-adds: no intermediate but the states is kept."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor) -> Tensor:
        states = inputs.clone()
        accumulate(decay.unbind(0)[1:], states.unbind(0))
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        dinputs = grads[0].clone(memory_format=torch.contiguous_format)
        accumulate(decay.unbind(0)[:0:-1], dinputs.unbind(0)[::-1])
        ddecay = torch.zeros_like(decay)
        ddecay[1:] = (dinputs[1:] * states[:-1]).sum_to_size(decay[1:].shape)
        return ddecay, dinputs


def diagonal_scan(decay: Tensor, inputs: Tensor) -> Tensor:
    """``h[t] = decay[t] * h[t-1] + inputs[t]`` along the first axis of (L, ...), from ``h[-1] = 0``.

    Stable for every decay: products of decays are never divided by one another. Their other axes broadcast to the inputs'.
    """
    return apply(_DiagonalScan, decay, inputs)


class _MixingScan(torch.autograd.Function):
    """One interpolation a step; the gradient of a gate is the difference that it weighs."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, candidates: Tensor) -> Tensor:
        gates = torch.sigmoid(logits)
        states = torch.empty_like(gates)
        torch.mul(gates[0], candidates[0], out=states[0])
        for previous, candidate, gate, state in zip(states[:-1], candidates[1:], gates[1:], states[1:], strict=True):
            torch.lerp(previous, candidate, gate, out=state)
        ctx.save_for_backward(gates, candidates, states)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gates, candidates, states = ctx.saved_tensors
        keeps = 1 - gates
        dstates = grads[0].clone(memory_format=torch.contiguous_format)
        accumulate(keeps.unbind(0)[:0:-1], dstates.unbind(0)[::-1])
        dlogits = candidates.clone()
        dlogits[1:] -= states[:-1]
        dcandidates = dstates.mul_(gates)
        return dlogits.mul_(keeps).mul_(dcandidates), dcandidates


def mixing_scan(logits: Tensor, candidates: Tensor) -> Tensor:
    """``h[t] = (1 - z[t]) h[t-1] + z[t] candidates[t]`` with ``z = sigmoid(logits)`` along the first axis, from ``h[-1] = 0``."""
    return apply(_MixingScan, logits, candidates)
