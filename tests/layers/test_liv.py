import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_default_size():
    config = layer("liv")
    assert config.num_params(128, 128) == 4 * 128**2 + 3 * 128
    assert config.state_size(128, 128) == 2 * 128


def test_it_is_cubic_and_looks_back_its_taps_only():
    torch.manual_seed(0)
    module, x_bld = layer("liv").build(16, 8), torch.randn(1, 8, 16)
    y_bld = module(x_bld)
    torch.testing.assert_close(module(2 * x_bld), 8 * y_bld)
    x_bld[:, 2] += 1
    moved = (module(x_bld) - y_bld).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [2, 3, 4]


def test_no_taps_are_refused():
    with pytest.raises(ArchlabError, match=r"^liv: d_conv=0: give a whole number of at least 1$"):
        layer("liv", d_conv=0)
