import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


@pytest.fixture
def rg_lru():
    torch.manual_seed(0)
    return layer("rg-lru", blocks=4).build(48, 16)


def test_costs_of_the_default_size():
    config = layer("rg-lru")
    inner = 176  # four thirds of 128, rounded up to a multiple of 16 blocks
    assert config.num_params(128, 128) == 3 * 128 * inner + 2 * inner**2 // 16 + (4 + 1) * inner + 5 * inner + 128
    assert config.state_size(128, 128) == inner + 3 * inner


def test_decays_before_the_factor_start_uniform_over_the_ring_of_the_authors_code():
    torch.manual_seed(0)
    module = layer("rg-lru", lru_width=4096).build(8, 1)
    area = torch.sigmoid(module.Lambda.detach()) ** 2
    quantiles = torch.quantile(area, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    expected = 0.9**2 + (0.999**2 - 0.9**2) * torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(quantiles, expected, rtol=0, atol=0.005)
    with torch.no_grad():
        module.gates_bias[0] = 1e4
        open_gate, _ = module._recurrence(torch.zeros(1, 4096))
    assert 0.9**8 - 1e-4 < open_gate.min() < 0.44
    assert 0.98 < open_gate.max() < 0.999**8 + 1e-4


def test_a_closed_recurrence_gate_keeps_the_state_and_writes_nothing(rg_lru):
    u = torch.randn(1, 64, requires_grad=True)
    with torch.no_grad():
        rg_lru.gates_bias[0] = -1e4
    decay, inputs = rg_lru._recurrence(u)
    assert (decay == 1).all()
    assert inputs.abs().max() < 1e-14
    gradients = torch.autograd.grad((decay + inputs).sum(), [u, rg_lru.gates_weight, rg_lru.gates_bias, rg_lru.Lambda])
    assert all(g.isfinite().all() for g in gradients)
    x_bld = torch.randn(1, 5, rg_lru.in_proj.in_features)
    assert all(g.isfinite().all() for g in torch.autograd.grad(rg_lru(x_bld).sum(), list(rg_lru.parameters())))


def test_what_slow_channels_write_keeps_its_digits(rg_lru):
    """Here decays are 1 - 1e-9, which float32 rounds to 1."""
    u = torch.randn(1, 64)
    with torch.no_grad():
        rg_lru.Lambda.fill_(20.0)
        _, inputs = rg_lru._recurrence(u)
        _, exact = rg_lru.double()._recurrence(u.double())
    assert exact.abs().max() > 1e-5
    torch.testing.assert_close(inputs.double(), exact, rtol=1e-5, atol=0)


def test_gates_see_their_own_block_only(rg_lru):
    u = torch.randn(1, 64)
    other = u.clone()
    other[:, 16:32] += 1
    moved = (rg_lru._recurrence(other)[0] != rg_lru._recurrence(u)[0])[0]
    assert moved[16:32].all()
    assert not moved[:16].any()
    assert not moved[32:].any()


def test_widths_that_do_not_fit_the_blocks_are_refused():
    with pytest.raises(ArchlabError, match=r"^rg-lru\(lru_width=100\): lru_width must be a multiple of blocks=16, or 0 for"):
        layer("rg-lru", lru_width=100)
    with pytest.raises(ArchlabError, match=r"^rg-lru: lru_width=-16: give a whole number of at least 0$"):
        layer("rg-lru", lru_width=-16)
