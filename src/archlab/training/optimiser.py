"""AdamW with the exemptions from weight decay that layers state, and its steps."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.adam import _fused_adam
from typing_extensions import override


class FusedAdamW(torch.optim.AdamW):
    """PyTorch's fused AdamW to the last bit, without importing PyTorch's compiler, which takes every process a second or more."""

    # the methods below the wrappers that import the compiler
    add_param_group = Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
    zero_grad = Optimizer.zero_grad.__wrapped__  # type: ignore[attr-defined]
    state_dict = Optimizer.state_dict.__wrapped__  # type: ignore[attr-defined]
    load_state_dict = Optimizer.load_state_dict.__wrapped__  # type: ignore[attr-defined]

    @override
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("FusedAdamW takes no closure: compute the gradients first")
        for group in self.param_groups:
            parameters, grads, averages, squares, maxima, steps = ([] for _ in range(6))  # type: ignore[var-annotated]
            self._init_group(group, parameters, grads, averages, squares, maxima, steps)  # type: ignore[no-untyped-call]
            _fused_adam(
                parameters,
                grads,
                averages,
                squares,
                maxima,
                steps,
                grad_scale=None,
                found_inf=None,
                amsgrad=False,
                has_complex=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
                capturable=group["capturable"],
                differentiable=False,
                decoupled_weight_decay=True,
            )


def make_optimizer(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    decay_all: bool = False,
    captured: bool = False,
) -> FusedAdamW:
    """Fused AdamW (arXiv 1711.05101) of a model whose parameters are all on one device.

    Weight decay acts on matrices only, and never on embeddings or on parameters that a layer exempts; with ``decay_all`` on
    every parameter, as the reference code has it. If CUDA graphs capture the step, they read the learning rate from the device.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_matrix = parameter.ndim > 1 and id(parameter) not in embeddings and not getattr(parameter, "_no_weight_decay", False)
        (decayed if decay_all or is_matrix else exempt).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    rate = torch.tensor(learning_rate, device=next(model.parameters()).device) if captured else learning_rate
    return FusedAdamW(groups, lr=rate, betas=betas, fused=True, capturable=captured)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters, in place where CUDA graphs read it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def update(model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float) -> None:
    """Clip the gradients to a norm unless it is 0, take the optimiser's step, and clear the gradients."""
    if grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    optimizer.zero_grad()
