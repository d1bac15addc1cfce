import math

import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.h3 import KERNEL_MAX_LENGTH
from archlab.layers.ops.flop_counter import count_flops
from archlab.testing.comparison import step_through


def test_costs():
    config = layer("h3")
    assert config.num_params(128, 128) == 4 * 128**2 + 4 * 128 + (4 + 1) * 128 + 16 * (2 * 2 + 2)
    assert config.state_size(128, 128) == 128 * 8 * 2 + 128 * 3
    assert layer("h3", head_dim=1, d_state=64, d_conv=64).state_size(128, 128) == 128 * 64 + 128 * 63


def test_shift_and_memory_together_recall_what_followed_the_same_token():
    module = layer("h3", d_conv=2).build(8, 6)
    with torch.no_grad():
        module.qkv_proj.weight.copy_(torch.eye(8).repeat(3, 1))
        module.out_proj.weight.copy_(torch.eye(8))
        module.qkv_proj.bias.zero_()
        module.out_proj.bias.zero_()
        module.shift.weight.copy_(torch.tensor([1.0, 0.0]))  # keys are the tokens before
        module.shift_skip.zero_()
        module.ssm.log_rate.fill_(-20.0)  # nothing is forgotten
        module.ssm.C.copy_(torch.tensor([0.5, 0.0]) / module.ssm.log_dt.exp()[:, None, None])
        module.ssm.D.zero_()
        tokens = [3, 7, 1, 3, 0, 7]
        found = module(torch.eye(8)[None, tokens])[0]
    followed = {3: 7, 5: 1}  # at position 3 token 3 again, which 7 followed; at position 5 token 7, which 1 followed
    expected = torch.stack([torch.eye(8)[followed[t]] if t in followed else torch.zeros(8) for t in range(6)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [KERNEL_MAX_LENGTH + 1, 400])
def test_long_sequences_go_through_the_states(length):
    torch.manual_seed(0)
    config = layer("h3", head_dim=4)
    module, x_bld = config.build(8, length).double(), torch.randn(2, length, 8, dtype=torch.float64, requires_grad=True)
    wanted, weights_bld = [x_bld, *module.parameters()], torch.randn(2, length, 8, dtype=torch.float64)
    y_bld, expected_bld = module(x_bld), step_through(module, x_bld)
    torch.testing.assert_close(y_bld, expected_bld, rtol=0, atol=1e-10 * float(expected_bld.detach().abs().max()))
    found, expected = (torch.autograd.grad((y * weights_bld).sum(), wanted) for y in (y_bld, expected_bld))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10 * max(1.0, float(other.detach().abs().max())))
    changed_bld = x_bld.detach().clone()
    changed_bld[:, 300:] += 1
    assert torch.equal(module(changed_bld)[:, :300], y_bld[:, :300])
    assert math.isclose(config.flops(8, length), count_flops(module, x_bld[:1].detach()), rel_tol=0.01)


def test_long_sequences_under_autocast():
    torch.manual_seed(0)
    module, x_bld = layer("h3").build(16, 300), torch.randn(2, 300, 16)
    with torch.no_grad():
        expected_bld = module(x_bld)
        with torch.autocast("cpu", torch.bfloat16):
            y_bld = module(x_bld)
    assert y_bld.dtype == torch.bfloat16
    torch.testing.assert_close(y_bld.float(), expected_bld, rtol=0, atol=0.03 * float(expected_bld.abs().max()))


def test_very_long_sequences_of_more_states_are_transformed():
    torch.manual_seed(0)
    config, length = layer("h3", head_dim=2, d_state=4), 2049
    module, x_bld = config.build(4, length), torch.randn(1, length, 4)
    with torch.no_grad():
        y_bld = module(x_bld)
        torch.testing.assert_close(y_bld[:, :-1], module(x_bld[:, :-1]), rtol=0, atol=1e-5 * float(y_bld.abs().max()))
        assert math.isclose(config.flops(4, length), count_flops(module, x_bld), rel_tol=0.01)


def test_impossible_knobs_are_refused():
    with pytest.raises(ArchlabError, match=r"^h3: d_state=3: give a whole number that is even and at least 2$"):
        layer("h3", d_state=3)
    with pytest.raises(ArchlabError, match=r"^h3\(head_dim=48\): width 128 is not divisible by 48;.*head_dim=32$"):
        layer("h3", head_dim=48).build(128, 8)
