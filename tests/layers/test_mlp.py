"""What the layer contract does not check: the default widths and the refusals."""

import pytest

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_parameters_at_width_128():
    assert layer("mlp").num_params(128, 1) == 131_072
    assert layer("swiglu").num_params(128, 1) == 135_168


@pytest.mark.parametrize(("dim", "inner"), [(128, 352), (96, 256), (64, 176), (1, 16)])
def test_the_default_gated_width_is_eight_thirds_in_multiples_of_16(dim, inner):
    assert layer("swiglu").build(dim, 1).up.out_features == inner


@pytest.mark.parametrize(("dim", "inner"), [(128, 352), (96, 256), (64, 176), (1, 16)])
def test_the_units_of_a_mixture_have_the_parameters_of_one(dim, inner):
    assert layer("moe").build(dim, 1).up.out_features == inner
    assert layer("moe").num_params(dim, 1) == layer("swiglu").num_params(dim, 1) + 8 * (dim + 1)


def test_a_given_inner_width_is_taken_as_it_is():
    assert layer("swiglu", inner=40).build(128, 1).up.out_features == 40
    assert layer("mlp", expand=1.5).build(128, 1).up.out_features == 192


def test_an_inner_width_of_nothing_is_refused():
    with pytest.raises(
        ArchlabError, match=r"^mlp\(expand=0.01\): no inner channel is left at width 50; use at least expand=0.02$"
    ):
        layer("mlp", expand=0.01).build(50, 1)
    for expand in (0.0, -1.0, 1e308):
        with pytest.raises(ArchlabError, match=r"^mlp: expand=.*: give a number above 0, of at most 1,000,000,000,000$"):
            layer("mlp", expand=expand)
    with pytest.raises(ArchlabError, match=r"^swiglu: inner=-1: give a whole number of at least 0$"):
        layer("swiglu", inner=-1)
