import math

import pytest
import torch
from tests.oracles.s4d import s4d

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.ops.flop_counter import count_flops


@pytest.fixture
def module():
    torch.manual_seed(0)
    return layer("s4d").build(128, 128)


def test_costs_of_the_paper_size():
    config = layer("s4d", d_state=64)
    assert config.num_params(128, 128) == 128 * (2 * 64 + 2) + 2 * 128**2 + 2 * 128
    assert config.state_size(128, 128) == 128 * 64


def test_states_start_at_the_eigenvalues_of_s4d_lin(module):
    torch.testing.assert_close(module.ssm.log_rate.exp(), torch.full((128, 8), 0.5))
    torch.testing.assert_close(module.ssm.frequency, (math.pi * torch.arange(8.0)).expand(128, 8))


def test_read_outs_start_complex_normal_and_step_sizes_log_uniform():
    torch.manual_seed(0)
    ssm = layer("s4d", d_state=2).build(8192, 1).ssm
    assert abs(ssm.C.square().sum(-1).mean() - 1) < 0.05
    dt = ssm.log_dt.exp()
    assert 1e-3 * (1 - 1e-5) < dt.min() < 1.01e-3
    assert 0.99e-1 < dt.max() < 1e-1 * (1 + 1e-5)
    assert abs((dt < 1e-2).float().mean() - 0.5) < 0.02


def test_weight_decay_spares_the_dynamics(module):
    spared = {name for name, p in module.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert spared == {"ssm.log_dt", "ssm.log_rate", "ssm.frequency"}


def test_small_steps_keep_their_digits(module):
    """At 1e-6 a step, exp(dt A) - 1 as a difference would have no digit left."""
    with torch.no_grad():
        module.ssm.log_dt.fill_(math.log(1e-6))
        module.ssm.D.zero_()
        found, exact = module.ssm.kernel(64), module.double().ssm.kernel(64)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_long_sequences_are_transformed_and_phases_of_thousands_of_radians_stay_exact():
    torch.manual_seed(0)
    config, length = layer("s4d", d_state=64), 1000
    module, x_bld = config.build(32, length), torch.randn(1, length, 32)
    with torch.no_grad():
        assert math.isclose(config.flops(32, length), count_flops(module, x_bld), rel_tol=0.01)
        found, exact = module(x_bld), s4d(module.double(), x_bld.double())
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("d_state", [0, 1, 15, -2])
def test_states_that_are_not_pairs_are_refused(d_state):
    with pytest.raises(ArchlabError, match=f"^s4d: d_state={d_state}: give a whole number that is even and at least 2$"):
        layer("s4d", d_state=d_state)
