import pytest
import torch
from torch.func import vmap
from torch.nn import functional as F

from archlab.layers.ops.rms_norm import rms_norm


def results(norm, x, weight_d, dy):
    x, weight_d = x.clone().requires_grad_(), weight_d.clone().requires_grad_()
    y = norm(x, weight_d)
    return y, *torch.autograd.grad(y, (x, weight_d), dy)


def pytorch(x, weight_d):
    return F.rms_norm(x, weight_d.shape, weight_d, 1e-5)


def ours(x, weight_d):
    return rms_norm(x, weight_d, 1e-5)


@pytest.mark.parametrize("shape", [(5,), (1, 1, 1), (3, 127, 8), (2, 3, 4, 16)])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
def test_outputs_and_gradients_equal_those_of_pytorch(shape, scale):
    torch.manual_seed(0)
    x, dy = scale * torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    weight_d = torch.randn(shape[-1], dtype=torch.float64)
    for mine, theirs in zip(results(ours, x, weight_d, dy), results(pytorch, x, weight_d, dy), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


def test_gradients_do_not_depend_on_the_layout_of_memory():
    x, dy, weight_d = torch.randn(4, 6, 8), torch.randn(6, 4, 8).transpose(0, 1), torch.randn(8)
    for one, other in zip(results(ours, x, weight_d, dy), results(ours, x, weight_d, dy.contiguous()), strict=True):
        torch.testing.assert_close(one, other)


def test_members_of_a_stack_are_normalised_with_their_own_weights():
    x, weight = torch.randn(3, 5, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    stacked = vmap(ours)(x, weight)
    alone = torch.stack([ours(*member) for member in zip(x, weight, strict=True)])
    torch.testing.assert_close(stacked, alone)
    for mine, theirs in zip(
        torch.autograd.grad(stacked.square().sum(), (x, weight)),
        torch.autograd.grad(alone.square().sum(), (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
