"""Steps of the optimiser."""

import pytest
import torch
from torch import nn

from archlab.training.optimiser import make_optimizer, set_learning_rate, update


def model_with_gradients() -> nn.Linear:
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 4.0)
    return model


@pytest.mark.parametrize("captured", [False, True])
def test_the_learning_rate_is_set_for_every_group(captured: bool):
    optimizer = make_optimizer(nn.Linear(3, 2), learning_rate=0.0, weight_decay=0.1, betas=(0.9, 0.95), captured=captured)
    before = [group["lr"] for group in optimizer.param_groups]
    set_learning_rate(optimizer, 0.25)
    after = [group["lr"] for group in optimizer.param_groups]
    assert [float(rate) for rate in after] == [0.25, 0.25]
    assert all((one is other) == captured for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(("grad_clip", "norm"), [(0.0, 4.0 * 8**0.5), (1.0, 1.0), (100.0, 4.0 * 8**0.5)])
def test_gradients_are_clipped_used_and_cleared(grad_clip: float, norm: float):
    model = model_with_gradients()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    update(model, torch.optim.SGD(model.parameters(), lr=1.0), grad_clip)
    steps = torch.cat([(before[name] - parameter).flatten() for name, parameter in model.named_parameters()])
    assert steps.norm().item() == pytest.approx(norm, rel=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())
