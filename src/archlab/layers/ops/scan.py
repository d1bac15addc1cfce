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
