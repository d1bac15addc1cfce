import pytest
import torch
from torch.func import vmap
from torch.nn import functional as F

from archlab.layers.ops.head_norm import HeadNorm, head_norm


def gradients(norm, x, weight, bias, dy):
    x, weight, bias = (t.clone().requires_grad_() for t in (x, weight, bias))
    y = norm(x, weight, bias)
    return y, *torch.autograd.grad(y, (x, weight, bias), dy)


def ours(x, weight, bias):
    return head_norm(x, weight, bias, 1e-5)


def pytorch(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], eps=1e-5) * weight + bias


@pytest.mark.parametrize("shape", [(1, 5), (3, 2, 8), (2, 3, 4, 16)])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
def test_outputs_and_gradients_equal_those_of_pytorch(shape, scale):
    torch.manual_seed(0)
    x, dy = scale * torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    weight, bias = torch.randn(2, *shape[-2:], dtype=torch.float64)
    for mine, theirs in zip(gradients(ours, x, weight, bias, dy), gradients(pytorch, x, weight, bias, dy), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_heads_are_groups_of_channels():
    torch.manual_seed(0)
    norm, x = HeadNorm(3, 12), torch.randn(2, 5, 3, 4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = F.group_norm(x.view(-1, 12), 3, norm.weight, norm.bias).view_as(x)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(x[:, 0]), expected[:, 0])


def test_members_of_a_stack_are_normalised_with_their_own_weights():
    x, weight, bias = (torch.randn(3, *shape, requires_grad=True) for shape in ((5, 2, 8), (2, 8), (2, 8)))
    stacked = vmap(ours)(x, weight, bias)
    torch.testing.assert_close(stacked, torch.stack([ours(*member) for member in zip(x, weight, bias, strict=True)]))
