import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.architectures.strategies import architectures

from archlab.architectures import architecture
from archlab.architectures.normalise import _nearest_sum, normalise
from archlab.errors import ArchlabError
from archlab.layers import registry

FIXED = [name for name, config in registry().items() if config().state_knob]


@pytest.mark.parametrize("name", FIXED)
def test_every_layer_with_a_knob_for_its_state_comes_near_the_papers(name):
    found = normalise(architecture(f"2*[{name} swiglu]"), state=4096)
    assert found.architecture.matrix_state(length=128, dim=128) == found.state
    assert 4096 / 1.5 <= found.state <= 4096 * 1.5
    assert bool(found.unreached) == (found.state != 4096)


@pytest.mark.parametrize(
    ("spec", "normal"),
    [
        ("mamba", "4*mamba"),
        ("2*[mamba swiglu]", "2*[mamba(d_state=8) swiglu]"),
        ("2*[gated-linear-attention swiglu]", "2*[gated-linear-attention(heads=8) swiglu]"),
        ("mh-sliding-attention retnet(heads=2)", "mh-sliding-attention(window=8) retnet"),
        ("experts(mamba, num=4)", "experts(mamba, num=4)"),
        ("parallel(mamba, retnet) mlp", "parallel(mamba(d_state=8), retnet) mlp"),
        ("experts(parallel(gsa, mlp), num=2)", "experts(parallel(gsa, mlp), num=2)"),
        ("rwkv-7 rwkv-7-channel-mixer rwkv-7 rwkv-7-channel-mixer", "2*[rwkv-7 rwkv-7-channel-mixer]"),
    ],
)
def test_the_state_is_reached_where_it_can_be(spec, normal):
    found = normalise(architecture(spec), state=4096)
    assert (str(found.architecture), found.state, found.unreached) == (normal, 4096, ())


@pytest.mark.parametrize(
    ("spec", "state", "dim", "normal"),
    [
        ("1*s4d", 38_400, 128, "s4d(d_state=300)"),
        ("1*s4d", 512, 8, "s4d(d_state=64)"),
        ("1*s4d", 512, 1, "s4d(d_state=512)"),
        ("1*h3", 4096, 8, "h3(d_state=64)"),
        ("mamba", 10**12, 128, "4*mamba(d_state=976562500)"),
        ("1*mamba", 10**8, 128, "mamba(d_state=390625)"),
        ("s4d(d_state=1000000000000)", 512, 128, "s4d(d_state=4)"),
        ("gqa(window=8)", 4096, 128, "gqa(window=64)"),
        ("hyena(filter=rtf)", 4096, 128, "hyena(filter_order=8, filter=rtf)"),
        ("mh-hyena(filter=rtf)", 40_960, 128, "mh-hyena(filter_order=40, filter=rtf)"),
        ("hyena-mr hyena-se", 4096, 128, "hyena-mr(kernel_size=17) hyena-se(kernel_size=17)"),
    ],
)
def test_values_far_beyond_the_width_are_found(spec, state, dim, normal):
    found = normalise(architecture(spec), state=state, dim=dim)
    assert (str(found.architecture), found.state, found.unreached) == (normal, state, ())


def test_a_large_state_takes_no_longer_than_a_small_one():
    found = normalise(architecture("mamba s4d mh-sliding-attention retnet"), state=10**12)
    assert found.unreached[-1].endswith("is the nearest that whole numbers give")
    assert "mh-sliding-attention(window=128)" in str(found.architecture)


def test_a_state_that_grows_stays_and_the_others_are_what_they_would_be_without_it():
    found = normalise(architecture("mamba swiglu mh-attention swiglu"), state=4096)
    assert str(found.architecture) == "mamba(d_state=8) swiglu mh-attention swiglu"
    assert found.changes == (("mamba", "mamba(d_state=8)"),)
    assert found.unreached == ("mh-attention: its state grows with the length (32,768 at 128), so it stays as it is",)
    for spec in ("2*[hyena swiglu]", "gqa", "mh-hyena"):
        assert normalise(architecture(spec), state=4096).changes == ()


def test_others_make_up_for_a_constant_state_that_no_knob_sets(monkeypatch):
    monkeypatch.setattr(registry()["mamba"], "state_knob", "")
    found = normalise(architecture("mamba mamba hgrn2"), state=4096)
    assert str(found.architecture) == "mamba mamba hgrn2"
    assert found.unreached == ("mamba: no knob sets its state of 1,024, so it stays as it is",)
    assert found.state == 4096


def test_every_copy_of_a_layer_counts_in_how_even_the_states_are():
    """66 is one layer of 6 and three of 20, or one of 36 and three of 10: 10 is off the even 20 in three layers."""
    times = {"three": 3, "one": 1}
    options = {"three": {20: "three of 20", 10: "three of 10"}, "one": {6: "one of 6", 36: "one of 36"}}
    assert _nearest_sum(times, options, goal=66, share=20) == {"three": "three of 20", "one": "one of 6"}


def test_what_whole_numbers_cannot_reach_is_said():
    found = normalise(architecture("2*[based swiglu]"), state=4096)
    assert found.state == 3840
    assert found.unreached == ("a state of 4,096 by feature_dim of based: 3,840 is the nearest that whole numbers give",)
    assert normalise(architecture("mlp"), state=4096).unreached == ("a state of 4,096: no layer has one",)
    tiny = normalise(architecture("2*mamba"), state=10)
    assert str(tiny.architecture) == "2*mamba(d_state=1)"
    assert tiny.state == 512


@pytest.mark.parametrize("channel", ["mlp", "swiglu", "moe", "experts(mlp, num=4)", "parallel(mlp, swiglu)"])
@pytest.mark.parametrize("params", [300_000, 1_000_000])
def test_inner_widths_set_the_parameters(channel, params):
    found = normalise(architecture(f"2*[mamba {channel}]"), state=4096, params=params)
    assert found.params == found.architecture.layer_params(length=128)
    assert found.params == pytest.approx(params, rel=0.01)
    assert found.unreached == ()


def test_parameters_out_of_reach_are_said():
    assert normalise(architecture("mamba"), state=4096, params=10**6).unreached == (
        "1,000,000 parameters: 429,056 are left, no inner width can be set",
    )
    few = normalise(architecture("2*[mamba swiglu]"), state=4096, params=1000)
    assert str(few.architecture) == "2*[mamba(d_state=8) swiglu(inner=1)]"
    assert few.unreached[0].startswith("1,000 parameters: ")


@settings(deadline=None, max_examples=50)
@given(architectures(), st.integers(64, 10_000))
def test_whatever_comes_out_fits_and_is_no_further_off_than_before(value, state):
    try:
        value.validate(64)
    except ArchlabError:
        return
    found = normalise(value, state=state, dim=64, length=32)
    found.architecture.validate(64)
    assert architecture(str(found.architecture)) == found.architecture
    if not found.unreached:
        assert found.state == state
    assert found.changes or found.architecture == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state": 0}, "state=0: give a whole number from 1 to 1000000000000"),
        ({"state": 1, "params": -1}, "params=-1: give a whole number from 1 to 1000000000000"),
        ({"state": 10**12 + 1}, "state=1000000000001: give a whole number from 1 to 1000000000000"),
        ({"state": 1, "length": 10**400}, ".*: give a whole number from 1 to 1000000000000"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ArchlabError, match=f"^{message}$"):
        normalise(architecture("mamba"), **arguments)
