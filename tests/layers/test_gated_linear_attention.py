import math

import pytest
import torch
from tests.oracles.gated_linear_attention import gated_linear_attention as oracle

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_reference_sizes():
    single, multi = layer("gated-linear-attention"), layer("mh-gated-linear-attention")
    assert single.num_params(128, 128) == 86_272
    assert multi.num_params(128, 128) == 86_160
    assert single.state_size(128, 128) == 16_384
    assert multi.state_size(128, 128) == 2048


def test_projections_start_xavier_uniform_at_a_low_gain():
    torch.manual_seed(0)
    module = layer("mh-gated-linear-attention").build(128, 8)
    for name, rows, columns in (
        ("q_proj", 128, 128),
        ("out_proj", 128, 128),
        ("decay_proj.0", 16, 128),
        ("decay_proj.1", 128, 16),
    ):
        bound = 2**-2.5 * math.sqrt(6 / (rows + columns))
        weight = module.get_submodule(name).weight
        assert weight.shape == (rows, columns)
        assert 0.99 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize("logit", [-5.0, -80.0, -1e4, 1e4])
def test_extreme_gates_are_exact_and_finite(logit):
    """Without the normaliser a logit of -5 decays by 5 a step, -80 by 80."""
    torch.manual_seed(0)
    module = layer("mh-gated-linear-attention", gate_logit_normalizer=1).build(64, 64)
    with torch.no_grad():
        module.decay_proj[1].bias.fill_(logit)
    x_bld = torch.randn(2, 45, 64, requires_grad=True)
    y_bld = module(x_bld)
    for gradient in torch.autograd.grad(y_bld.sum(), [x_bld, *module.parameters()]):
        assert torch.isfinite(gradient).all()
    if abs(logit) < 100:  # beyond, the oracle's own logistic function overflows
        exact = oracle(module, x_bld.detach().double())
        assert (y_bld.double() - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_expansions_that_split_a_channel_are_refused():
    with pytest.raises(
        ArchlabError, match=r"heads=8, expand_k=0\.3\): width 128 gives 4\.8 channels a head.*expand_k=0\.3125 fits"
    ):
        layer("mh-gated-linear-attention", expand_k=0.3).build(128, 8)
    with pytest.raises(ArchlabError, match=r"expand_v=0\.0: give a number above 0"):
        layer("mh-gated-linear-attention", expand_v=0.0)
