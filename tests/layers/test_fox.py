import torch

from archlab.layers import layer
from archlab.layers.fox import forgetting_attention


def test_open_gates_leave_attention_and_closed_ones_the_token_itself():
    q, k, v = torch.randn(3, 2, 30, 2, 8, dtype=torch.float64).unbind(0)
    gates = torch.zeros(2, 30, 2, dtype=torch.float64)
    plain = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q, k, v)), is_causal=True, scale=1.0
    ).transpose(1, 2)
    torch.testing.assert_close(forgetting_attention(q, k, v, gates), plain)
    torch.testing.assert_close(forgetting_attention(q, k, v, gates - 1e4), v)


def test_gates_far_from_the_start_keep_their_digits():
    """A difference of sums near 20,000 has four digits after the point in float32; the weights here have five."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 300, 1, 8).unbind(0)
    gates = -0.01 * torch.rand(1, 300, 1)
    gates[:, :100] = -200.0
    exact = forgetting_attention(q.double(), k.double(), v.double(), gates.double())
    error = (forgetting_attention(q, k, v, gates) - exact).abs().max()
    assert error < 2e-5


def test_gates_start_half_open():
    assert layer("fox").build(32, 8).forget_proj.bias.count_nonzero() == 0


def test_the_pro_block_has_its_parameters_and_looks_back_one_token():
    plain, pro = layer("fox"), layer("fox", pro=True)
    assert pro.num_params(128, 64) - plain.num_params(128, 64) == 128 * 128 + 2 * 128 * 8 + 3 * 128
    assert pro.state_size(128, 64) - plain.state_size(128, 64) == 2 * 128
