import pytest
import torch
from tests.oracles.linear_attention import linear_attention as oracle

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.ops.feature_map import FEATURE_MAPS
from archlab.testing.comparison import step_through


def test_costs_of_the_reference_sizes():
    single, multi = layer("linear-attention"), layer("mh-linear-attention")
    assert single.num_params(128, 128) == 131_584
    assert multi.num_params(128, 128) == 65_824
    assert single.state_size(128, 128) == 16_384 + 128
    assert multi.state_size(128, 128) == 1024 + 128
    assert layer("mh-linear-attention", normalize=False).state_size(128, 128) == 1024


@pytest.mark.parametrize("name", ["linear-attention", "mh-linear-attention"])
@pytest.mark.parametrize("normalize", [True, False])
def test_float32_outputs_of_longer_sequences_are_accurate(name, normalize):
    torch.manual_seed(0)
    module = layer(name, normalize=normalize, feature_map="elu").build(64, 127)
    x_bld = torch.randn(2, 127, 64)
    exact = oracle(module, x_bld.double())
    assert (module(x_bld).double() - exact).abs().max() <= 2e-6 * exact.abs().max()


def test_a_denominator_of_zero_gives_finite_outputs_and_gradients():
    module = layer("mh-linear-attention").build(32, 8)
    with torch.no_grad():
        module.k_map.factors.bias.zero_()
        module.k_proj.weight.zero_()
    x_bld = torch.randn(2, 8, 32, requires_grad=True)
    y_bld = module(x_bld)
    (dx_bld,) = torch.autograd.grad(y_bld.sum(), x_bld)
    assert torch.isfinite(y_bld).all()
    assert torch.isfinite(dx_bld).all()


def test_a_negative_denominator_keeps_its_sign():
    """Scores that are all negative weigh values as scores that are all positive do."""
    torch.manual_seed(0)
    module = layer("linear-attention", heads=2).build(8, 16)
    with torch.no_grad():
        for mapping in (module.q_map, module.k_map):
            mapping.factors.weight.zero_()
            mapping.factors.bias.fill_(1.0)
        positive = module(x_bld := torch.randn(1, 16, 8))
        module.q_map.factors.bias[:4] = -1.0  # the first of the two factors of each product
        negative = module(x_bld)
    torch.testing.assert_close(negative, positive)
    means = module.v_proj(x_bld).cumsum(1) / torch.arange(1, 17)[:, None]
    torch.testing.assert_close(positive, module.out_proj(means))


@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
def test_both_forms_agree_under_every_feature_map(feature_map):
    torch.manual_seed(0)
    config = layer("linear-attention", heads=2, feature_map=feature_map)
    module = config.build(8, 20).double()
    x_bld = torch.randn(2, 20, 8, dtype=torch.float64)
    torch.testing.assert_close(module(x_bld), step_through(module, x_bld), rtol=1e-6, atol=1e-9)
    assert sum(t[0].numel() for t in module.init_state(1).values()) == config.state_size(8, 20)


@pytest.mark.parametrize("feature_map", ["relu", "t2r"])
def test_queries_that_no_key_meets_read_zero(feature_map):
    module = layer("linear-attention", heads=2, feature_map=feature_map).build(8, 5)
    with torch.no_grad():
        module.q_proj.weight.copy_(-module.k_proj.weight)
        for name, parameter in module.named_parameters():
            if "_map" in name:
                parameter.copy_(torch.eye(4) if parameter.dim() == 2 else torch.zeros(4))
    x_bld = torch.randn(1, 1, 8).expand(1, 5, 8).clone().requires_grad_()
    y_bld = module(x_bld)
    (dx_bld,) = torch.autograd.grad(y_bld.sum(), x_bld)
    assert torch.equal(y_bld, torch.zeros_like(y_bld))
    assert torch.isfinite(dx_bld).all()


def test_unknown_feature_maps_are_refused_with_those_there_are():
    with pytest.raises(ArchlabError, match="feature_map='elementwise': give text from elementwise-product, elu, relu, "):
        layer("linear-attention", feature_map="elementwise")


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ArchlabError, match=r"mh-linear-attention\(heads=3\): width 128 is not divisible by 3"):
        layer("mh-linear-attention", heads=3).build(128, 8)
