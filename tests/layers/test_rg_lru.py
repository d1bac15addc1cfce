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


def test_decays_under_an_open_gate_start_uniform_in_their_range():
    torch.manual_seed(0)
    decay = torch.sigmoid(layer("rg-lru", lru_width=4096).build(8, 1).Lambda) ** 8
    assert 0.9 - 1e-5 < decay.min() < 0.902
    assert 0.997 < decay.max() < 0.999 + 1e-5
    assert abs(decay.mean() - 0.9495) < 0.002


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
