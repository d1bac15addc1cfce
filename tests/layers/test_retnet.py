import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_reference_sizes():
    config = layer("retnet")
    assert config.num_params(128, 128) == 8 * 128**2
    assert config.state_size(128, 128) == 2048


def test_heads_decay_at_rates_of_their_own():
    module = layer("retnet", heads=4).build(16, 8)
    kept = module._log_decay(torch.empty(0)).exp()
    torch.testing.assert_close(kept, torch.tensor([31 / 32, 63 / 64, 127 / 128, 255 / 256]))


def test_heads_of_odd_width_are_refused():
    with pytest.raises(ArchlabError, match=r"^retnet\(heads=16\): width 48 does not split into 16 heads.*fits is heads=12$"):
        layer("retnet").build(48, 8)
    with pytest.raises(ArchlabError, match=r"width 31 is odd.*; use an even width$"):
        layer("retnet").build(31, 8)
