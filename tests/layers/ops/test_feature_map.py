"""Every feature map against its definition, entry by entry, and its accounting."""

import math

import pytest
import torch
from torch import Tensor

from archlab.layers.ops.feature_map import FEATURE_MAPS
from archlab.layers.ops.flop_counter import count_flops


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0)


def dpfp(x: Tensor) -> list[Tensor]:
    y = [*relu(x).unbind(-1), *relu(-x).unbind(-1)]
    return [y[i] * y[(i - j) % len(y)] for j in range(1, 5) for i in range(len(y))]


def taylor(x: Tensor) -> list[Tensor]:
    x_ = x.unbind(-1)
    root = math.sqrt(len(x_))
    squares = [a * a / (math.sqrt(2) * root) for a in x_]
    pairs = [x_[i] * x_[j] / root for i in range(len(x_)) for j in range(i + 1, len(x_))]
    return [torch.ones_like(x_[0]), *(a / math.sqrt(root) for a in x_), *squares, *pairs]


DEFINITIONS = {
    "elu": lambda x, p: torch.where(x > 0, x + 1, x.exp()),
    "relu": lambda x, p: relu(x),
    "identity": lambda x, p: x,
    "elementwise-product": lambda x, p: (x @ p["factors.weight"].T + p["factors.bias"]).unflatten(-1, (2, -1)).prod(-2),
    "t2r": lambda x, p: relu(x @ p["proj.weight"].T + p["proj.bias"]),
    "hedgehog": lambda x, p: torch.softmax(
        torch.cat([2 * (x @ p["proj.weight"].T + p["proj.bias"]), -2 * (x @ p["proj.weight"].T + p["proj.bias"])], -1), -1
    ),
    "dpfp": lambda x, p: torch.stack(dpfp(x), -1),
    "taylor": lambda x, p: torch.stack(taylor(x), -1),
}


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_equals_its_definition(name, dim):
    torch.manual_seed(0)
    kind = FEATURE_MAPS[name]
    module = kind(dim).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    x = torch.randn(3, 4, dim, dtype=torch.float64)
    found = module(x)
    torch.testing.assert_close(found, DEFINITIONS[name](x, dict(module.named_parameters())), rtol=1e-12, atol=1e-12)
    assert found.shape[-1] == kind.width(dim)
    assert sum(p.numel() for p in module.parameters()) == kind.num_params(dim)
    assert count_flops(module, x) == 12 * kind.flops(dim)


def test_hedgehog_starts_from_the_head_itself():
    x = torch.tensor([0.5, -1.0])
    expected = torch.tensor([1.0, -2.0, -1.0, 2.0]).softmax(0)
    torch.testing.assert_close(FEATURE_MAPS["hedgehog"](2)(x), expected)


def test_taylor_features_expand_the_exponential():
    q, k = torch.randn(2, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = FEATURE_MAPS["taylor"](6)
    score = (q * k).sum(-1) / math.sqrt(6)
    torch.testing.assert_close((features(q) * features(k)).sum(-1), 1 + score + score**2 / 2)
