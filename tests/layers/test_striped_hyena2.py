import math

import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.ops.flop_counter import count_flops
from archlab.testing.comparison import step_through

NAMES = ["hyena-se", "hyena-mr", "hyena-li"]


@pytest.mark.parametrize(
    ("name", "kernels", "memory"),
    [("hyena-se", 7 * 8, 6), ("hyena-mr", 128 * 8 + 128, 127), ("hyena-li", 3 * 16 * 128 + 128, 16)],
)
def test_parameters_and_states_are_those_of_the_paper(name, kernels, memory):
    config = layer(name)
    assert config.num_params(128, 1024) == 4 * 128**2 + 9 * 128 + kernels
    assert {config.state_size(128, length) for length in (128, 1024)} == {memory * 128 + 6 * 128}


@pytest.mark.parametrize("name", NAMES)
def test_channels_of_a_group_share_their_kernel_but_for_the_skip_connection(name):
    module = layer(name, group_size=4).build(16, 20)
    kernel_gcl = module.kernel(20).unflatten(0, (4, 4))
    assert torch.equal(kernel_gcl[:, :, 1:], kernel_gcl[:, :1, 1:].expand(-1, 4, -1))
    assert not torch.equal(kernel_gcl[0, :, 1:], kernel_gcl[1, :, 1:])
    first = module.filter(20)[:, :1].expand(-1, 4).flatten()
    assert torch.equal(module.kernel(20)[:, 0], first if name == "hyena-se" else first + module.skip)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [129, 300])
def test_long_sequences_equal_their_steps(name, length):
    module = layer(name).build(16, length).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        x_bld = torch.randn(1, length, 16, dtype=torch.float64)
        torch.testing.assert_close(module(x_bld), step_through(module, x_bld), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_flops_of_long_sequences_are_as_counted(name):
    config = layer(name)
    counted = count_flops(config.build(16, 300), torch.randn(1, 300, 16))
    assert config.flops(16, 300) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_streaming_past_the_maximum_length_goes_on_as_the_parallel_form(name):
    module, x_bld = layer(name, group_size=4).build(8, 4).double(), torch.randn(1, 20, 8, dtype=torch.float64)
    torch.testing.assert_close(step_through(module, x_bld), module(x_bld), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["hyena-se", "hyena-mr"])
def test_explicit_kernels_have_no_tap_that_no_sequence_reaches(name):
    config = layer(name)
    assert config.num_params(16, 128) - config.num_params(16, 3) == config.kernel_size - 3
    assert config.state_size(16, 3) == (2 + 6) * 16
    assert config.build(16, 3).filter.taps.shape == (1, 3)


def test_windows_of_medium_kernels_decay_over_the_documented_range():
    kernels = layer("hyena-mr", group_size=1).build(5, 128).filter
    with torch.no_grad():
        kernels.taps.fill_(1.0)
        rates = -kernels(128)[:, :2].double().log().diff() * 127
    torch.testing.assert_close(rates[:, 0], torch.tensor([0.01, 0.1, 1, 10, 100], dtype=torch.float64), rtol=2e-3, atol=0)


def test_medium_kernels_start_as_their_skip_connection():
    module = layer("hyena-mr").build(32, 128)
    assert (module.kernel(128)[:, 0] - module.skip).abs().max() < 1e-5
    assert 0 < module.kernel(128)[:, 1:].abs().max() < 1e-5


def test_modes_start_as_long_as_documented():
    kernels = layer("hyena-li").build(64, 128).filter
    lasting = torch.exp(-kernels.p - kernels.gamma)
    assert 10 * math.e * 0.999 < lasting.min() < lasting.max() < 100 * math.e * 1.001


@pytest.mark.parametrize("name", NAMES)
def test_filters_take_no_weight_decay(name):
    assert all(p._no_weight_decay for p in layer(name).build(16, 8).filter.parameters())


@pytest.mark.parametrize(
    ("name", "knob"),
    [
        ("hyena-se", "kernel_size"),
        ("hyena-mr", "kernel_size"),
        ("hyena-li", "d_state"),
        *((name, "group_size") for name in NAMES),
    ],
)
def test_knobs_below_one_are_refused(name, knob):
    with pytest.raises(ArchlabError, match=f"^{name}: {knob}=0: give a whole number of at least 1$"):
        layer(name, **{knob: 0})


@pytest.mark.parametrize("name", NAMES)
def test_groups_that_do_not_divide_the_width_are_refused(name):
    with pytest.raises(ArchlabError, match=rf"{name}\(group_size=3\): width 128 is not divisible by 3"):
        layer(name, group_size=3).build(128, 8)
