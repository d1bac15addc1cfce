"""What the layer contract does not check: published figures, the window, and the refusals."""

import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_parameters_and_state_at_width_128():
    for name in ("attention", "mh-attention", "sliding-attention", "mh-sliding-attention"):
        assert layer(name).num_params(128, 127) == 66_048
    assert layer("mh-attention").state_size(128, 127) == 32_512
    assert layer("mh-sliding-attention").state_size(128, 127) == 8_448


def test_dense_flops_are_projections_and_every_pair():
    assert layer("mh-attention").flops(128, 127) == 8 * 128**2 * 127 + 4 * 127**2 * 128


def test_narrow_heads_skip_what_is_out_of_the_window_at_length_127():
    assert layer("mh-sliding-attention").flops(128, 127) < 0.9 * layer("mh-attention").flops(128, 127)


@pytest.mark.parametrize("length", [40, 127, 128, 512])
def test_a_window_never_costs_more_than_dense_attention(length):
    dense, sliding = layer("attention").flops(128, length), layer("sliding-attention").flops(128, length)
    assert sliding <= dense
    assert layer("sliding-attention", window=length).flops(128, length) == dense


@pytest.mark.parametrize("window", [1, 2, 33, 64, 65, 100])
def test_a_query_sees_exactly_its_window(window):
    torch.manual_seed(0)
    module = layer("sliding-attention", window=window).build(32, 200).double()
    x_bld = torch.randn(1, 200, 32, dtype=torch.float64)
    changed_bld = x_bld.clone()
    changed_bld[:, 70] += 1
    moved = (module(changed_bld) - module(x_bld)).abs().amax((0, 2)).nonzero().flatten().tolist()
    assert moved == list(range(70, min(70 + window, 200)))


def test_a_window_as_long_as_the_sequence_is_dense_attention():
    torch.manual_seed(0)
    dense, sliding = layer("attention").build(32, 127), layer("sliding-attention", window=127).build(32, 127)
    sliding.load_state_dict(dense.state_dict())
    x_bld = torch.randn(2, 127, 32)
    assert torch.equal(dense(x_bld), sliding(x_bld))


def test_forward_sees_the_whole_past_beyond_the_maximum_length():
    torch.manual_seed(0)
    short, long = layer("attention").build(32, 8), layer("attention").build(32, 100)
    short.load_state_dict(long.state_dict())
    x_bld = torch.randn(2, 100, 32)
    assert torch.equal(short(x_bld), long(x_bld))


def test_sliding_steps_may_go_on_beyond_the_maximum_length():
    torch.manual_seed(0)
    module = layer("sliding-attention", window=4).build(32, 8)
    x_bld = torch.randn(2, 40, 32)
    state, outputs = module.init_state(2), []
    for x_bd in x_bld.unbind(1):
        y_bd, state = module.step(x_bd, state)
        outputs.append(y_bd)
    torch.testing.assert_close(torch.stack(outputs, 1), module(x_bld))


def test_sequences_of_one_batch_may_stand_at_different_positions():
    torch.manual_seed(0)
    module = layer("mh-attention").build(32, 8)
    x_bd = torch.randn(2, 32)
    _, ahead = module.step(x_bd, module.init_state(2))
    fresh = module.init_state(2)
    mixed = {name: torch.stack((ahead[name][0], fresh[name][1])) for name in fresh}
    y_bd, _ = module.step(x_bd, mixed)
    torch.testing.assert_close(y_bd[0], module.step(x_bd, ahead)[0][0])
    torch.testing.assert_close(y_bd[1], module.step(x_bd, fresh)[0][1])


@pytest.mark.parametrize(
    ("knobs", "dim", "reason"),
    [
        (
            {"heads": 3},
            128,
            "attention(heads=3): width 128 does not split into 3 heads of even width; the nearest that fits is heads=2",
        ),
        (
            {"heads": 16},
            16,
            "attention(heads=16): width 16 does not split into 16 heads of even width; the nearest that fits is heads=8",
        ),
        ({}, 31, "attention: width 31 is odd and splits into no heads of even width; use an even width"),
    ],
)
def test_widths_that_do_not_fit_are_refused(knobs, dim, reason):
    config = layer("attention", **knobs)
    for act in (config.validate, lambda width: config.build(width, 8)):
        with pytest.raises(ArchlabError) as error:
            act(dim)
        assert str(error.value) == reason


@pytest.mark.parametrize("knob", ["heads", "window"])
def test_knobs_below_one_are_refused(knob):
    with pytest.raises(ArchlabError, match=f"^sliding-attention: {knob}=0: give a whole number of at least 1$"):
        layer("sliding-attention", **{knob: 0})


def test_heads_share_keys_and_values_in_groups():
    config = layer("gqa")
    assert config.num_params(128, 127) == 129 * 128 * 2 + 129 * 32 * 2
    assert config.state_size(128, 127) == 127 * 2 * 32
    assert layer("gqa", window=10).state_size(128, 127) == 10 * 2 * 32


def test_groups_of_one_are_attention():
    torch.manual_seed(0)
    every, grouped = layer("attention", heads=4).build(32, 9), layer("gqa", heads=4, kv_heads=4).build(32, 9)
    grouped.load_state_dict(every.state_dict())
    x_bld = torch.randn(2, 9, 32)
    assert torch.equal(every(x_bld), grouped(x_bld))


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"kv_heads": 5}, "gqa(kv_heads=5): 16 heads do not split into 5 equal groups; the nearest that fits is kv_heads=4"),
        ({"kv_heads": 0}, "gqa: kv_heads=0: give a whole number of at least 1"),
        ({"window": -1}, "gqa: window=-1: give a whole number of at least 0"),
    ],
)
def test_groups_that_do_not_fit_are_refused(knobs, reason):
    with pytest.raises(ArchlabError) as error:
        layer("gqa", **knobs)
    assert str(error.value) == reason
