"""The first-order linear recurrence, element by element."""

from typing import Any

import torch
from torch import Tensor

from archlab.layers.ops.members import apply


def accumulate(decays: Tensor, steps: Tensor, *, backwards: bool = False) -> None:
    """Turn ``steps`` (T, ...) into states along the first axis, in place and outside autograd.

    ``steps[t + 1] += decays[t] * steps[t]`` in order, or ``backwards`` ``steps[t] += decays[t] * steps[t + 1]``.

    One after the other on a CPU; elsewhere in a number of operations that grows with the logarithm of T.
    """
    if steps.is_cpu:
        order = slice(None, None, -1 if backwards else 1)
        states = steps.unbind(0)[order]
        for decay, previous, current in zip(decays.unbind(0)[order], states[:-1], states[1:], strict=True):
            current.addcmul_(decay, previous)
    elif backwards:
        turned = steps.flip(0)
        accumulate_in_pairs(decays.flip(0), turned)
        steps.copy_(turned.flip(0))
    else:
        accumulate_in_pairs(decays, steps)


def accumulate_in_pairs(decays: Tensor, steps: Tensor) -> None:
    """Accumulate in order by halving: every second state from the one before, these among themselves, then those between."""
    first, second = steps[0::2], steps[1::2]
    if not len(second):
        return
    between = len(first) - 1
    second.addcmul_(decays[0::2], first[: len(second)])
    inner = len(second) - 1
    accumulate_in_pairs(decays[1::2][:inner] * decays[2::2][:inner], second)
    first[1:].addcmul_(decays[1::2], second[:between])


class _MixingScan(torch.autograd.Function):
    """One interpolation a step; the gradient of a gate is the difference that it weighs."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, candidates: Tensor) -> Tensor:
        gates = torch.sigmoid(logits)
        if gates.is_cpu:
            states = torch.empty_like(gates)
            torch.mul(gates[0], candidates[0], out=states[0])
            for previous, candidate, gate, state in zip(states[:-1], candidates[1:], gates[1:], states[1:], strict=True):
                torch.lerp(previous, candidate, gate, out=state)
        else:
            states = gates * candidates
            accumulate(1 - gates[1:], states)
        ctx.save_for_backward(gates, candidates, states)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gates, candidates, states = ctx.saved_tensors
        keeps = 1 - gates
        dstates = grads[0].clone(memory_format=torch.contiguous_format)
        accumulate(keeps[1:], dstates, backwards=True)
        dlogits = candidates.clone()
        dlogits[1:] -= states[:-1]
        dcandidates = dstates.mul_(gates)
        return dlogits.mul_(keeps).mul_(dcandidates), dcandidates


def mixing_scan(logits: Tensor, candidates: Tensor) -> Tensor:
    """``h[t] = (1 - z[t]) h[t-1] + z[t] candidates[t]`` with ``z = sigmoid(logits)`` along the first axis, from ``h[-1] = 0``."""
    return apply(_MixingScan, logits, candidates)
