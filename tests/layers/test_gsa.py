import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_reference_sizes():
    config = layer("gsa")
    assert config.num_params(128, 128) == 4 * 128**2 + 128 * 4 * 8 + 128
    assert config.state_size(128, 128) == 2048
    assert layer("gsa", heads=1).state_size(128, 128) == 2048


def test_slots_that_forget_all_hold_the_token_itself():
    """With every gate closed each slot is the current token, whatever the scores."""
    module = layer("gsa", heads=2, gate_logit_normalizer=1).build(8, 12)
    with torch.no_grad():
        module.decay_proj.weight.zero_()
        module.decay_proj.weight[:, 0] = -1e3
        x_bld = torch.randn(1, 12, 8)
        x_bld[..., 0] = 1.0
        alone = module._read_out(x_bld, module._project(x_bld)[2])
        torch.testing.assert_close(module(x_bld), alone)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ArchlabError, match=r"^gsa\(heads=3\): width 128 is not divisible by 3"):
        layer("gsa", heads=3).build(128, 8)
