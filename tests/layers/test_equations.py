"""Every layer of the package has its equations where commands show them."""

import pytest

from archlab.layers import registry
from archlab.layers.equations import equation

OWN = sorted(name for name, config in registry().items() if config.__module__.startswith("archlab."))


@pytest.mark.parametrize("name", OWN)
def test_every_layer_of_the_package_has_an_equation(name: str):
    assert any(sign in equation(name) for sign in ("=", "W2"))


def test_an_equation_is_that_of_the_layer():
    assert equation("mamba").splitlines()[0] == "y = W_o ((C_t h_t + D x_t) * silu(z_t))"
    assert "swiglu:    W3 (silu(W1 x) * W2 x)" in equation("swiglu")
    assert equation("deltaproduct").startswith("S <- S + k_j")
    assert equation("my_layer") == ""
