import math

import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.ops import long_conv
from archlab.layers.ops.flop_counter import count_flops
from archlab.layers.ops.implicit_filter import ImplicitFilter


@pytest.mark.parametrize(
    ("name", "knobs", "length", "expected"),
    [
        ("hyena", {}, 128, 124_348),
        ("hyena", {}, 1280, 127_804),
        ("mh-hyena", {"heads": 8}, 128, 30_862),
        ("mh-hyena", {"heads": 8}, 1280, 34_318),
    ],
)
def test_the_reference_layouts_have_the_reference_number_of_parameters(name, knobs, length, expected):
    config = layer(name, **knobs)
    assert config.num_params(128, length) == expected
    assert sum(p.numel() for p in config.build(128, length).parameters()) == expected


@pytest.mark.parametrize(("name", "filters", "states"), [("hyena", 512, 4 * 512), ("mh-hyena", 16, 2 * 128 * 8)])
def test_rational_filters_have_their_own_parameters_and_a_state_of_any_length(name, filters, states):
    implicit, rational = layer(name), layer(name, filter="rtf")
    own = ImplicitFilter.num_params(filters, 128, implicit.filter_order)
    assert implicit.num_params(128, 128) - rational.num_params(128, 128) == own - 2 * implicit.filter_order * filters
    short = 2 * rational.build(128, 8).in_proj.out_features
    assert {rational.state_size(128, length) for length in (8, 128, 4096)} == {states + short}


@pytest.mark.parametrize("name", ["hyena", "mh-hyena"])
def test_flops_follow_the_form_that_runs_at_each_length(name):
    config = layer(name)
    per_token = {length: config.flops(64, length) / length for length in (64, 128, 256, 2048, 4096)}
    if name == "hyena":  # matrices grow with the length, transforms with its logarithm
        assert per_token[128] - per_token[64] == pytest.approx(2 * 64 * 256, rel=1e-9)
        assert per_token[4096] - per_token[2048] == pytest.approx(3 * 256 * 2.5 * 2, rel=0.01)
    else:
        assert per_token[2048] - per_token[256] == pytest.approx(2 * 64 * (2048 - 256), rel=1e-9)
        assert per_token[4096] < per_token[2048] / 2


@pytest.mark.parametrize(
    ("name", "filter", "length"), [("hyena", "implicit", 129), ("hyena", "rtf", 129), ("mh-hyena", "rtf", 2049)]
)
def test_flops_of_transforms_are_as_counted(name, filter, length):
    config = layer(name, filter=filter)
    counted = count_flops(config.build(16, length), torch.randn(1, length, 16))
    assert config.flops(16, length) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize(
    ("name", "knobs", "dim", "message"),
    [
        ("mh-hyena", {"heads": 3}, 128, r"mh-hyena\(heads=3\): width 128 is not divisible by 3"),
        ("mh-hyena", {"heads": 8, "proj_groups": 5}, 128, r"mh-hyena\(proj_groups=5\): the 384 channels"),
        ("hyena", {"proj_groups": 7}, 128, r"hyena\(proj_groups=7\): the 1536 channels"),
    ],
)
def test_knobs_that_do_not_fit_the_width_are_refused(name, knobs, dim, message):
    with pytest.raises(ArchlabError, match=message):
        layer(name, **knobs).validate(dim)


@pytest.mark.parametrize("knob", ["inner_factor", "proj_groups", "filter_order"])
def test_knobs_below_one_are_refused(knob):
    with pytest.raises(ArchlabError, match=f"^hyena: {knob}=0: give a whole number of at least 1$"):
        layer("hyena", **{knob: 0})


@pytest.mark.parametrize("name", ["hyena", "mh-hyena"])
def test_unknown_filters_are_refused(name):
    with pytest.raises(ArchlabError, match=f"^{name}: filter='fir': give one of implicit, rtf$"):
        layer(name, filter="fir")


@pytest.mark.parametrize("name", ["hyena", "mh-hyena"])
def test_a_sequence_longer_than_the_maximum_is_refused(name):
    with pytest.raises(ArchlabError, match="length 33 exceeds max_length 32"):
        layer(name).build(32, 32)(torch.zeros(1, 33, 32))


def test_the_window_decays_over_the_documented_range():
    window_cl = ImplicitFilter(5, max_length=100, width=4).window(100)
    rates = -window_cl[:, -1].log()  # time is 1 at the last position
    torch.testing.assert_close(rates, torch.linspace(math.log(100) / 1.5, math.log(100) / 0.3, 5))
    assert torch.equal(window_cl[:, 0], torch.ones(5))


def test_kernels_depend_on_the_maximum_length_and_not_on_the_length():
    kernels = ImplicitFilter(8, max_length=100, width=4)
    assert torch.equal(kernels(100)[:, :30], kernels(30))
    torch.manual_seed(0)
    short = ImplicitFilter(8, max_length=50, width=4)
    torch.manual_seed(0)
    long = ImplicitFilter(8, max_length=100, width=4)
    assert not torch.allclose(short(30), long(30))


def test_positions_are_trained_and_nothing_of_the_filter_decays():
    kernels = ImplicitFilter(8, max_length=20, width=4)
    named = dict(kernels.named_parameters())
    assert named["features_lf"].shape == (20, 3)
    assert all(p._no_weight_decay for p in named.values())
    assert sum(p.numel() for p in named.values()) == ImplicitFilter.num_params(8, 20, 4)


@pytest.mark.parametrize("name", ["hyena", "mh-hyena"])
def test_long_form_equals_short_form(name, monkeypatch):
    module = layer(name).build(32, 40)
    x_bld = torch.randn(2, 40, 32)
    by_matrix = module(x_bld)
    monkeypatch.setattr(long_conv, "TOEPLITZ_MAX_LENGTH", 0)
    monkeypatch.setattr(long_conv, "TOEPLITZ_MAX_LENGTH_HEADS", 0)
    torch.testing.assert_close(module(x_bld), by_matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["hyena", "mh-hyena"])
def test_streaming_past_the_maximum_length_forgets_the_oldest(name):
    """The kernel ends after max_length taps, so token max_length + 1 no longer sees token 1."""
    module = layer(name).build(16, 4)
    outputs = []
    for first in (torch.zeros(1, 16), torch.ones(1, 16)):
        state = module.init_state(1)
        _, state = module.step(first, state)
        for _ in range(6):  # the short convolution carries the first token two positions further
            y_bd, state = module.step(torch.full((1, 16), 0.5), state)
        outputs.append(y_bd)
    assert torch.equal(*outputs)
