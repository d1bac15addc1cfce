"""Routing of tokens to experts, and how the experts are kept equally busy."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import at_least_float32, no_autocast

_BALANCE = 1e-6
"""Gradient of a selection bias for one token too many. AdamW gives its steps their size whatever the gradients' scale;
the scale is small so that a bound on the norm of all gradients does not feel them."""


class Router(nn.Module):
    """Weights of the ``active`` experts that each token is routed to: a softmax over their logits, 0 for all others.

    Chosen are the largest of logit + sqrt(D) bias. The bias, one scalar an expert, has no part in the weights and serves
    balance alone: it falls where an expert has more than its share of the tokens and rises where it has less, without an
    auxiliary loss, whose gradient would compete with the task's (Wang et al. 2024, arXiv 2408.15664, algorithm 1). There
    a rule of its own moves the bias by a fixed step against the sign of the violation. Here the violation is the bias's
    gradient, and AdamW makes of it a step of about the learning rate: nothing but the optimiser changes a layer between
    two passes. The factor sqrt(D) lets the bias keep up with the logits, which are sums over D weights that take such
    steps too; without it, small models, which learn fast, stay as uneven as with no bias at all.

    With ``reference``, the released code of MAD (arXiv 2403.17844): the logits of experts that are not chosen become 0
    instead of minus infinity, so after the softmax every expert has a weight, and there is no balance.
    """

    def __init__(self, dim: int, num: int, active: int, reference: bool = False) -> None:
        super().__init__()
        self.active = active
        self.linear = nn.Linear(dim, num, bias=reference)
        self.balance = None if reference else nn.Parameter(torch.zeros(num))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., D) to weights (..., experts), of the dtype of ``x``; computed in at least float32."""
        with no_autocast(x):
            logits = F.linear(at_least_float32(x), self.linear.weight, self.linear.bias)
            if self.balance is None:
                least = logits.topk(self.active, dim=-1).values[..., -1:]
                weights = logits.masked_fill(logits < least, 0).softmax(-1)
            else:
                chosen = (logits + math.sqrt(x.shape[-1]) * self.balance).detach().topk(self.active, dim=-1).indices
                is_chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, chosen, True)
                weights = logits.masked_fill(~is_chosen, -torch.inf).softmax(-1)
                weights = apply(_Balanced, weights, self.balance, is_chosen)
        return weights.to(x.dtype)


def router_params(dim: int, num: int) -> int:
    """Trainable scalars of a :class:`Router`: a bias an expert, whichever it is."""
    return (dim + 1) * num


class _Balanced(torch.autograd.Function):
    """The weights as they are; the gradient of the bias is how many tokens an expert has more than its share."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, balance: Tensor, is_chosen: Tensor) -> Tensor:
        ctx.save_for_backward(is_chosen)
        ctx.dtype = balance.dtype
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (is_chosen,) = ctx.saved_tensors
        tokens = is_chosen.flatten(0, -2).sum(0).to(ctx.dtype)
        return grads[0], _BALANCE * (tokens - tokens.mean()), None
