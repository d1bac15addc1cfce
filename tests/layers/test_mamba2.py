import pytest
import torch
import torch.nn.functional as F

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_reference_sizes():
    config = layer("mamba-2")
    assert config.num_params(128, 128) == 128 * (512 + 16 + 8) + 272 * 5 + 3 * 8 + 256 + 256 * 128
    assert config.state_size(128, 128) == 2048 + 3 * 272


def test_rates_and_step_sizes_start_in_their_ranges():
    module = layer("mamba-2", headdim=1).build(64, 8)
    rates, dt = module.A_log.exp(), F.softplus(module.dt_bias)
    assert 1 <= rates.min() < rates.max() <= 16
    assert 0.99e-3 <= dt.min() < dt.max() <= 1.01e-1
    assert all(p._no_weight_decay for p in (module.A_log, module.dt_bias, module.D))


def test_heads_that_do_not_divide_the_inner_width_are_refused():
    with pytest.raises(ArchlabError, match=r"^mamba-2\(headdim=48\): the inner width 256 is not divisible by 48.*headdim=32"):
        layer("mamba-2", headdim=48).build(128, 8)


def test_long_step_sizes_forget_all_but_the_token_itself():
    module = layer("mamba-2").build(32, 20)
    with torch.no_grad():
        module.dt_bias.fill_(40.0)
        module.conv.weight[:, :, :-1] = 0
        x_bld = torch.randn(1, 20, 32)
        alone = torch.cat([module(x_bd[:, None]) for x_bd in x_bld.unbind(1)], 1)
        torch.testing.assert_close(module(x_bld), alone)
