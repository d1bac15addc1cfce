import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.ops.sliding_attention import scored_pairs


def test_costs_of_the_default_size():
    config = layer("nsa")
    of_block = 8 * 8 * 8 + 8 + 8 * 8 + 8  # eight tokens of eight channels to one, in two maps
    assert config.num_params(128, 64) == 128 * (2 * 128 + 6 * 32 + 3 * 16) + 3 * 16 + 2 * of_block
    assert config.matrix_state(128, 64) == 2 * 32 * (64 + 8 + 32)
    assert config.state_size(128, 64) == 2 * 32 * (64 + 8 + 32 + 7)
    in_window = scored_pairs(256, 32, 8)
    skipped = 256**2 + in_window - 256 * (6 * 8 + 32)
    assert config.flops(128, 256) - config.active_flops(128, 256) == 4 * 128 * skipped


def test_a_query_sees_the_selected_blocks_and_no_others():
    """With gates that leave the selected attention alone, a change of a token moves the queries that select its block."""
    module = layer("nsa", heads=2, kv_heads=1, block=4, selected=3, window=1).build(8, 32).double()
    with torch.no_grad():
        module.gate_proj.weight.zero_()
        module.gate_proj.bias.copy_(torch.tensor([-1e4, -1e4, 1e4, 1e4, -1e4, -1e4]))  # by branch, then head
    x_bld = torch.randn(1, 32, 8, dtype=torch.float64)
    changed = x_bld.clone()
    changed[0, 9] += 1  # of the third block
    moved = (module(changed) - module(x_bld)).abs().amax((0, 2)) > 0
    # With three selected blocks, all are given: the first, that before the query's, and its own.
    assert moved.nonzero().flatten().tolist() == list(range(9, 16))


def test_the_block_that_the_compressed_attention_points_to_is_selected():
    module = layer("nsa", heads=2, kv_heads=1, block=4, selected=4).build(8, 32)
    weights = torch.zeros(1, 1, 1, 8)
    weights[..., 3] = 0.9
    weights[..., 2] = 0.1
    chosen = module._selection(weights, torch.tensor([[31]]), 8)
    assert chosen.flatten().nonzero().flatten().tolist() == [0, 3, 6, 7]


def test_impossible_knobs_are_refused():
    with pytest.raises(ArchlabError, match=r"nsa\(kv_heads=3\): 16 heads do not split into 3 equal groups; the nearest"):
        layer("nsa", kv_heads=3)
    with pytest.raises(ArchlabError, match=r"nsa: selected=2"):
        layer("nsa", selected=2)
