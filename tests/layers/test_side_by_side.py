import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer

L, D = 128, 128


def test_of_channel_mixers_the_chosen_ones_are_active():
    mlp, router = layer("mlp"), 2 * L * D * 6
    config = layer("experts", mlp, num=6, active=2)
    assert config.flops(D, L) == 6 * mlp.flops(D, L) + router
    assert config.active_flops(D, L) == 2 * mlp.flops(D, L) + router


def test_of_sequence_mixers_all_are_active_for_all_take_in_every_token():
    config = layer("experts", layer("mamba"), num=6, active=2)
    assert config.active_flops(D, L) == config.flops(D, L)


def test_nested_experts_are_counted_through():
    inner = layer("experts", layer("mlp"), num=4)
    assert layer("parallel", inner, layer("mlp")).active_flops(D, L) == inner.active_flops(D, L) + layer("mlp").flops(D, L)


def test_a_mixture_of_units_counts_as_experts_of_units_do():
    moe = layer("moe", num=4, active=3, inner=32)
    assert moe.flops(D, L) - moe.active_flops(D, L) == 2 * L * 3 * D * 32
    reference = layer("moe", inner=16, reference=True)
    assert reference.active_flops(D, L) == reference.flops(D, L)
    assert reference.num_params(D, L) == 164_872  # the released code's 165,000 without its 128 unused gates


def test_hyena_experts_skip_outputs_of_the_matrix_form_only():
    config = layer("hyena-experts")
    assert config.num_params(D, L) == 57_464
    assert config.flops(D, L) - config.active_flops(D, L) == 2 * L * L * 128 * 6 // 8
    assert config.flops(D, 512) == config.active_flops(D, 512)
    assert layer("hyena-experts", inner=0).num_params(D, L) == config.num_params(D, L)
    reference = layer("hyena-experts", reference=True)
    assert reference.flops(D, L) == reference.active_flops(D, L)


@pytest.mark.parametrize("name", ["moe", "hyena-experts"])
def test_a_choice_that_is_none_is_refused(name):
    with pytest.raises(ArchlabError, match=rf"^{name}: active=1: give a whole number of at least 2: .* nothing to learn from$"):
        layer(name, active=1)
    with pytest.raises(ArchlabError, match=rf"^{name}\(num=2, active=3\): active must be at most num$"):
        layer(name, num=2, active=3)


def test_gates_start_as_the_plain_sum():
    torch.manual_seed(0)
    gated = layer("parallel", layer("mlp"), layer("swiglu"), gate=True).build(D, L)
    x_bld = torch.randn(2, 5, D)
    assert torch.allclose(gated(x_bld), gated.branches[0](x_bld) + gated.branches[1](x_bld), atol=1e-6)
