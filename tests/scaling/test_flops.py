"""The conventions by which FLOPs are counted."""

import math

import pytest

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.layers import registry
from archlab.scaling.flops import training_flops

D, L, V = 64, 128, 99
SHAPE = {"dim": D, "length": L, "vocab_size": V}


def test_exact_is_three_forward_passes_of_the_accounting():
    value = architecture("mamba swiglu mh-attention swiglu")
    assert training_flops(value, **SHAPE, convention="exact") == 3 * value.flops(**SHAPE)


def test_of_experts_those_that_a_token_is_routed_to_count():
    value = architecture("hyena-experts moe")
    assert training_flops(value, **SHAPE, convention="exact") == 3 * value.active_flops(**SHAPE) < 3 * value.flops(**SHAPE)


def test_6nd_counts_every_parameter():
    value = architecture("mh-attention swiglu")
    assert training_flops(value, **SHAPE, convention="6nd") == 6 * L * value.num_params(**SHAPE)


@pytest.mark.parametrize(
    ("spec", "forward"),
    [
        ("mh-attention(heads=4)", 6 * L * D**2 + 4 * L**2 * D + 2 * 4 * L**2 + 2 * L * D**2),
        ("swiglu(inner=160)", 6 * L * D * 160),
        ("1*moe(num=8, active=2, inner=20)", 2 * L * D * 8 + 6 * L * D * 20 * 2),
        (
            "1*hyena-experts(num=4, inner=0)",
            6 * L * D**2 + 18 * L * D + 16 * L * D + 10 * L * math.log2(L) * D + 4 * L * D + 2 * L * D * 16 + 2 * L * D * 4,
        ),
        (
            "1*hyena(inner_factor=1, proj_groups=1, filter_order=16)",
            6 * L * D**2 + 18 * L * D + 16 * L * D + 10 * L * math.log2(L) * D + 4 * L * D + 2 * L * D**2,
        ),
        (
            "1*mh-hyena(heads=8, proj_groups=1, filter_order=16)",
            6 * L * D**2 + 18 * L * D + 16 * L * 8 + 10 * L * math.log2(L) * D**2 / 8 + 4 * L * D**2 / 8 + 2 * L * D**2,
        ),
        (
            "1*mamba(d_state=16, d_conv=4, expand=2, dt_rank=4)",
            4 * L * D**2 * 2
            + 2 * 4 * L * D * 2
            + 2 * L * D * 2 * (4 + 32)
            + 2 * L * 4 * D * 2
            + 2 * L * D * 2 * 16
            + 2 * L * D**2 * 2,
        ),
    ],
)
def test_the_papers_formulas(spec: str, forward: float):
    assert training_flops(architecture(spec), **SHAPE, convention="paper") == 3 * (forward + 4 * L * D * V)


def test_layers_of_the_paper_have_a_formula():
    found = {name for name, config in registry().items() if config().paper_flops(D, L) is not None}
    assert found == {"attention", "mh-attention", "swiglu", "moe", "hyena", "hyena-experts", "mh-hyena", "mamba"}


def test_what_the_paper_does_not_say_is_refused():
    with pytest.raises(ArchlabError, match="'paper' has no formula for gsa, only for attention, "):
        training_flops(architecture("gsa swiglu"), **SHAPE, convention="paper")
    with pytest.raises(ArchlabError, match="unknown FLOP convention 'papers': did you mean 'paper'"):
        training_flops(architecture("swiglu"), **SHAPE, convention="papers")
