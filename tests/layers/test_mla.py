"""What the layer contract does not check: costs, the cache, and the refusals."""

import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_at_width_128():
    config = layer("mla")
    maps = 128 * (96 + 32 + 8) + 96 * 8 * 24 + 32 * 8 * 32 + 128 * 128
    assert config.num_params(128, 127) == maps + 96 + 32
    assert config.state_size(128, 127) == 127 * 40
    assert config.flops(128, 127) == 2 * 127 * maps + 4 * 127**2 * 8 * 24


def test_of_a_token_only_the_latent_and_the_rotated_key_are_remembered():
    module = layer("mla").build(64, 5)
    _, state = module.step(torch.randn(2, 64), module.init_state(2))
    assert {name: tuple(t.shape) for name, t in state.items()} == {"latent": (2, 5, 32 + 8), "position": (2,)}


def test_forward_sees_the_whole_past_beyond_the_maximum_length():
    torch.manual_seed(0)
    short, long = layer("mla").build(32, 8), layer("mla").build(32, 100)
    short.load_state_dict(long.state_dict())
    x_bld = torch.randn(2, 100, 32)
    assert torch.equal(short(x_bld), long(x_bld))


def test_only_the_rotated_parts_know_positions():
    torch.manual_seed(0)
    module = layer("mla").build(32, 9)
    x_bld = torch.randn(1, 9, 32)
    swapped_bld = x_bld[:, [1, 0, *range(2, 9)]]
    assert not torch.allclose(module(x_bld)[:, -1], module(swapped_bld)[:, -1])
    with torch.no_grad():
        module.kv_down.weight[32:] = 0
    torch.testing.assert_close(module(x_bld)[:, -1], module(swapped_bld)[:, -1])


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"rope_dim": 7}, "mla: rope_dim=7: give a whole number that is even and at least 2"),
        ({"kv_rank": 0}, "mla: kv_rank=0: give a whole number of at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(knobs, reason):
    with pytest.raises(ArchlabError) as error:
        layer("mla", **knobs)
    assert str(error.value) == reason
