import pytest
import torch

from archlab.layers import layer
from archlab.layers.ops.flop_counter import count_flops
from archlab.layers.path_attention import path_attention
from archlab.testing.comparison import step_through


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("length", [64, 65, 200])
def test_chunks_equal_steps_and_cost_what_is_counted(length, forget):
    config = layer("path-attention", heads=2, forget=forget)
    module, x_bld = config.build(16, length).double(), torch.randn(1, length, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(module(x_bld), step_through(module, x_bld), rtol=1e-10, atol=1e-10)
    assert config.flops(16, length) == pytest.approx(count_flops(module, x_bld), rel=0.01)


def test_without_rates_it_is_attention_without_positions():
    q, k, v, w = torch.randn(4, 2, 3, 100, 8).unbind(0)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    torch.testing.assert_close(path_attention(q, k, v, w, torch.zeros(2, 3, 100), None), plain)


def test_a_token_of_rate_two_mirrors_the_keys_before_it():
    """A key along ``w`` turns round and one across stays: what parity needs."""
    k = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    w, v = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    out = path_attention(*(t[None, None] for t in (q, k, v, w)), torch.full((1, 1, 2), 2.0), None)
    weights = torch.tensor([-3.0, 0.0]).softmax(0)
    torch.testing.assert_close(out[0, 0, 1], weights)
