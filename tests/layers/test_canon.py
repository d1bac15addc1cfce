import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_default_size():
    config = layer("canon")
    assert config.num_params(128, 128) == 4 * 128
    assert config.state_size(128, 128) == 3 * 128
    assert layer("canon", d_conv=1).flops(128, 128) == 0


@pytest.mark.parametrize(("d_conv", "length"), [(4, 128), (4, 3), (4, 1), (200, 128)])
def test_every_tap_counts_on_the_tokens_that_it_reaches(d_conv, length):
    pairs = sum(length - lag for lag in range(1, min(d_conv, length)))
    assert layer("canon", d_conv=d_conv).flops(128, length) == 2 * 128 * pairs


def test_channels_are_apart_and_the_token_itself_passes():
    module, x_bld = layer("canon").build(8, 6), torch.zeros(1, 6, 8)
    x_bld[:, 1, 3] = 1
    response = (module(x_bld) - x_bld)[0]
    torch.testing.assert_close(response[1:5, 3], module.conv.weight[3, 0].flip(0))
    response[1:5, 3] = 0
    assert not response.any()


def test_no_taps_are_refused():
    with pytest.raises(ArchlabError, match=r"^canon: d_conv=0: give a whole number of at least 1$"):
        layer("canon", d_conv=0)
