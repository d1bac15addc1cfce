import math

import pytest
import torch
import torch.nn.functional as F

from archlab.layers import layer
from archlab.layers.ops.delta_rule import gated_delta_rule
from archlab.layers.titans import momentum_delta_rule


def rule_inputs(length):
    q, k, v = (torch.randn(2, length, 3, size, dtype=torch.float64) for size in (4, 4, 6))
    return q, F.normalize(k, dim=-1), v, torch.rand(2, length, 3, 1, dtype=torch.float64)


def test_costs_of_the_default_size():
    config = layer("titans")
    maps = 128 * (3 * 128 + 8) + 128 * 128 + 128 * (128 + 2 * 8)  # those of deltanet; gate, forgetting and momentum
    assert config.num_params(128, 64) == maps + 4 * 3 * 128 + 16 + 2 * 8
    assert config.matrix_state(128, 64) == 2 * 128 * 16
    assert config.state_size(128, 64) == 2 * 128 * 16 + 3 * 3 * 128


def test_without_momentum_and_forgetting_it_is_the_delta_rule():
    given = rule_inputs(21)
    none = torch.tensor([0.0, -math.inf], dtype=torch.float64).expand(2, 21, 3, 2)
    ours = momentum_delta_rule(*given, none, 8)
    torch.testing.assert_close(
        ours, gated_delta_rule(*given, torch.zeros(2, 21, 3, 1, dtype=torch.float64), 8), atol=1e-6, rtol=0
    )


def test_one_write_lasts_by_the_powers_of_both_gates():
    """Of a first write of 1 with momentum 1/2 and memory kept whole, 1, 3/2, 7/4, ... is held."""
    q = k = torch.ones(1, 9, 1, 1, dtype=torch.float64)
    beta = torch.zeros_like(k)
    beta[:, 0] = 1
    log_decay = torch.tensor([0.0, math.log(0.5)], dtype=torch.float64).expand(1, 9, 1, 2)
    held = momentum_delta_rule(q, k, torch.ones_like(k), beta, log_decay, 4).flatten()
    torch.testing.assert_close(held, 2 - 0.5 ** torch.arange(9, dtype=torch.float64))


@pytest.mark.parametrize("length", [1, 7, 8, 21])
def test_chunks_change_nothing(length):
    given = (*rule_inputs(length), -3 * torch.rand(2, length, 3, 2, dtype=torch.float64))
    whole = momentum_delta_rule(*given, 32)
    for chunk in (4, 8, 16):
        torch.testing.assert_close(momentum_delta_rule(*given, chunk), whole)


def test_starts():
    module = layer("titans").build(64, 8)
    forgotten, momentum = module.decay_proj.bias.view(8, 2).sigmoid().unbind(-1)
    torch.testing.assert_close(forgotten, torch.full((8,), 0.01))
    torch.testing.assert_close(momentum, torch.full((8,), 0.5))
