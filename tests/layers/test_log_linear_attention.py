"""What the layer contract does not check: costs, the layers that these extend, and lengths beyond the maximum."""

import math

import pytest
import torch

from archlab.layers import layer
from archlab.testing.comparison import step_through

BASES = {"log-linear-attention": "mamba-2", "log-linear-gated-deltanet": "gated-deltanet"}


@pytest.mark.parametrize("name", BASES)
def test_parameters_and_states_grow_with_the_logarithm_of_the_length(name):
    config, base = layer(name), layer(BASES[name])
    for length, levels in ((1, 2), (2, 2), (127, 8), (128, 8), (129, 9), (1024, 11)):
        assert config.num_params(128, length) == base.num_params(128, length) + 129 * 8 * levels
        assert config.state_size(128, length) == base.state_size(128, length) + (levels - 2) * 2048


@pytest.mark.parametrize("name", BASES)
def test_with_all_weights_one_it_is_its_base(name):
    torch.manual_seed(0)
    module, base = layer(name).build(32, 50), layer(BASES[name]).build(32, 50)
    missing = module.load_state_dict(base.state_dict(), strict=False).missing_keys
    assert missing == ["levels.scale", "levels.proj.weight"]
    x_bld = torch.randn(2, 50, 32)
    x_bld[..., 0] = 1
    with torch.no_grad():
        module.levels.proj.weight.zero_()[:, 0] = math.log(math.e - 1)  # softplus makes it 1
    torch.testing.assert_close(module(x_bld), base(x_bld))


@pytest.mark.parametrize("name", BASES)
def test_both_forms_agree_beyond_the_maximum_length(name):
    torch.manual_seed(0)
    for max_length in (1, 2, 5, 16):
        module = layer(name).build(32, max_length).double()
        x_bld = torch.randn(2, 50, 32, dtype=torch.float64)
        torch.testing.assert_close(step_through(module, x_bld), module(x_bld))


def test_buckets_merge_as_binary_digits_carry():
    torch.manual_seed(0)
    module = layer("log-linear-attention").build(32, 16)
    state = module.init_state(1)
    for position in range(1, 16):
        _, state = module.step(torch.randn(1, 32), state)
        filled = [bool(bucket.any()) for bucket in state["buckets"][0]]
        assert filled == [bool(position >> digit & 1) for digit in range(4)], f"before token {position}"


def test_sequences_of_one_batch_may_stand_at_different_positions():
    torch.manual_seed(0)
    module = layer("log-linear-attention").build(32, 8)
    x_bd = torch.randn(2, 32)
    _, ahead = module.step(x_bd, module.init_state(2))
    fresh = module.init_state(2)
    mixed = {name: torch.stack((ahead[name][0], fresh[name][1])) for name in fresh}
    y_bd, after = module.step(x_bd, mixed)
    for row, alone in enumerate((ahead, fresh)):
        expected_bd, state = module.step(x_bd, alone)
        torch.testing.assert_close(y_bd[row], expected_bd[row])
        torch.testing.assert_close(after["buckets"][row], state["buckets"][row])
