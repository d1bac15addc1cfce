"""Steps of the optimiser."""

import pytest
import torch
from torch import nn

from archlab.training.optimiser import FusedAdamW, make_optimizer, set_learning_rate, update


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


def trained(optimizer: type[torch.optim.AdamW], dtype: torch.dtype) -> tuple[list[torch.Tensor], dict]:
    """Weights and the optimiser's state after steps at several rates, and after a state was saved and loaded in between."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 16), nn.Linear(16, 33), nn.GELU(), nn.Linear(33, 5).to(dtype), nn.Linear(5, 5))
    embedding, *others = model.parameters()
    unused = others.pop()  # has no gradient
    groups = [{"params": [*others, unused], "weight_decay": 0.1}, {"params": [embedding], "weight_decay": 0.0}]
    one = optimizer(groups, lr=0.0, betas=(0.9, 0.95), fused=True)
    for step in range(12):
        if step == 6:
            state, one = one.state_dict(), optimizer(groups, lr=0.0, betas=(0.9, 0.95), fused=True)
            one.load_state_dict(state)
        for parameter in (embedding, *others):
            parameter.grad = torch.randn_like(parameter)
        set_learning_rate(one, 0.01 * step)
        update(model, one, grad_clip=1.0)
    return list(model.parameters()), one.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_pytorch_to_the_last_bit(dtype: torch.dtype):
    weights, state = trained(FusedAdamW, dtype)
    expected_weights, expected_state = trained(torch.optim.AdamW, dtype)
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=0)
    torch.testing.assert_close(state["state"], expected_state["state"], rtol=0, atol=0)
    assert state["param_groups"] == expected_state["param_groups"]


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="takes no closure"):
        FusedAdamW([nn.Parameter(torch.ones(2))], fused=True).step(lambda: 0.0)
