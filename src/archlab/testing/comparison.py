"""Outputs and gradients of a layer, and how far two sets of them are apart."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from archlab.layers.contract import Recurrent


def step_through(module: nn.Module, x_bld: Tensor) -> Tensor:
    """The outputs of the step form, token after token from the initial state."""
    recurrent = cast(Recurrent, module)
    state = recurrent.init_state(len(x_bld))
    outputs = []
    for x_bd in x_bld.unbind(1):
        y_bd, state = recurrent.step(x_bd, state)
        outputs.append(y_bd)
    return torch.stack(outputs, 1)


def outputs_and_gradients(module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x_bld: Tensor) -> dict[str, Tensor]:
    """The output, and the gradients of its product with fixed numbers: of the input and of every parameter.

    What the output does not depend on has a gradient of zeros: one token alone need not use every parameter.
    """
    x_bld = x_bld.clone().requires_grad_()
    y_bld = run(module, x_bld)
    cotangent = torch.randn(y_bld.shape, generator=torch.Generator().manual_seed(0)).to(y_bld)
    wanted = {"input": x_bld, **{name: p for name, p in module.named_parameters() if p.requires_grad}}
    gradients = torch.autograd.grad((y_bld * cotangent).sum(), list(wanted.values()), materialize_grads=True)
    return {"output": y_bld.detach(), **{f"gradient of {n}": g for n, g in zip(wanted, gradients, strict=True)}}


def relative_error(found: Tensor, exact: Tensor, floor: float = 0.0) -> float:
    """The largest deviation relative to the largest entry, or to ``floor`` if that is larger; NaN counts as infinite."""
    found, exact = found.detach().double(), exact.detach().double()
    error = float((found - exact).abs().max())
    scale = max(float(exact.abs().max()), floor)
    if error == 0:
        return 0.0
    return math.inf if math.isnan(error) or scale == 0 else error / scale


def compare(found: dict[str, Tensor], exact: dict[str, Tensor], tolerance: float, where: str) -> None:
    """Against each tensor's largest entry; a gradient that all but cancels, against a hundredth of the largest gradient."""
    assert found.keys() == exact.keys()
    floor = 1e-2 * max(float(tensor.abs().max()) for name, tensor in exact.items() if name != "output")
    for name, tensor in found.items():
        error = relative_error(tensor, exact[name], 0.0 if name == "output" else floor)
        assert error <= tolerance, f"{where}: {name} is off by {error:.2g} of its largest entry, {tolerance:.2g} is allowed"


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh memory holds NaN, or the largest integer."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before)
