import pytest

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_reference_sizes():
    config = layer("based")
    assert config.num_params(128, 128) == 2 * 128**2 + 2 * 128 * 32
    assert config.state_size(128, 128) == 1920 + 120
    assert layer("based", feature_dim=16).state_size(128, 128) == 153 * (128 + 8)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ArchlabError, match=r"^based\(heads=3\): width 128 is not divisible by 3"):
        layer("based", heads=3).build(128, 8)
