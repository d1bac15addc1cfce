"""RWKV-5 and RWKV-6: costs, where they start, and what their gates can do."""

import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_reference_sizes():
    assert layer("rwkv-5").num_params(128, 128) == 82_944
    assert layer("rwkv-6").num_params(128, 128) == 140_544
    assert layer("rwkv-5").state_size(128, 128) == layer("rwkv-6").state_size(128, 128) == 2048 + 128
    for name in ("rwkv-5-channel-mixer", "rwkv-6-channel-mixer"):
        assert layer(name).num_params(128, 128) == 147_712
        assert layer(name).state_size(128, 128) == 128


@pytest.mark.parametrize("name", ["rwkv-5", "rwkv-6"])
def test_starts_as_the_first_layer_of_a_model(name):
    module = layer(name).build(64, 8)
    torch.testing.assert_close(module.log_rate[[0, -1]], torch.tensor([-6.0, -1.0]))
    torch.testing.assert_close(module.bonus.flatten()[:4], torch.tensor([0.0, 0.1, -0.1, 0.0]))
    for_r, for_k = module.mix[:2]
    torch.testing.assert_close(1 - for_k, torch.arange(64) / 64)
    torch.testing.assert_close((1 - for_r) ** 2, torch.arange(64) / 64)


def test_finch_starts_as_eagle_but_for_its_rates_by_token():
    torch.manual_seed(0)
    eagle, finch = layer("rwkv-5").build(32, 12), layer("rwkv-6").build(32, 12)
    finch.load_state_dict({name: value for name, value in eagle.state_dict().items() if name != "mix"}, strict=False)
    x_bld = torch.randn(2, 12, 32)
    torch.testing.assert_close(finch(x_bld), eagle(x_bld), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("log_rate", [-1e4, 5.0, 1e4])
def test_rates_beyond_every_bound_are_finite(log_rate):
    module = layer("rwkv-6").build(32, 20)
    with torch.no_grad():
        module.log_rate.fill_(log_rate)
    x_bld = torch.randn(2, 20, 32, requires_grad=True)
    y_bld = module(x_bld)
    for gradient in torch.autograd.grad(y_bld.sum(), [x_bld, *module.parameters()]):
        assert torch.isfinite(gradient).all()
    assert torch.isfinite(y_bld).all()


def test_heads_of_one_channel_are_refused():
    with pytest.raises(ArchlabError, match=r"^rwkv-6\(heads=8\): a head needs at least 2 channels, width 8 leaves it 1"):
        layer("rwkv-6").build(8, 8)
