import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.ops.flop_counter import count_flops
from archlab.testing.comparison import step_through


def test_other_heads_are_accounted_for_and_step_as_they_run():
    config, x_bld = layer("rwkv-7", heads=2), torch.randn(2, 20, 32)
    module = config.build(32, 20)
    torch.nn.init.normal_(module.out_proj.weight)
    with torch.no_grad():
        torch.testing.assert_close(module(x_bld), step_through(module, x_bld), rtol=1e-4, atol=1e-4)
    assert config.num_params(32, 20) == sum(p.numel() for p in module.parameters())
    assert config.state_size(32, 20) == sum(t.numel() for t in module.init_state(1).values())
    assert config.flops(32, 20) == pytest.approx(count_flops(module, x_bld[:1]), rel=0.01)


def test_the_group_norm_has_the_epsilon_of_the_authors_code_at_every_width_of_heads():
    assert {layer("rwkv-7", heads=heads).build(128, 16).norm.eps for heads in (2, 8, 16)} == {64e-5}


def test_ranks_grow_with_the_root_of_the_width():
    assert layer("rwkv-7")._ranks(128) == [32, 32, 64]
    assert layer("rwkv-7")._ranks(1024) == [64, 64, 160]


def test_heads_of_one_channel_are_refused():
    with pytest.raises(ArchlabError, match=r"rwkv-7\(heads=8\): a head needs at least 2 channels, width 8 leaves it 1"):
        layer("rwkv-7").validate(8)


def test_starts_without_output_and_with_decays_above_their_bound():
    module = layer("rwkv-7").build(128, 16)
    x_bld = torch.randn(2, 16, 128)
    assert module(x_bld).count_nonzero() == 0
    _, log_decay, *_ = module._project(x_bld, torch.zeros_like(x_bld))
    assert -0.6066 < float(log_decay.detach().min()) < -0.5
    assert -0.05 < float(log_decay.detach().max()) < 0
