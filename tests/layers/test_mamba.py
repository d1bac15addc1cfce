import pytest
import torch
from torch.nn.functional import softplus

from archlab.errors import ArchlabError
from archlab.layers import layer


@pytest.fixture
def mamba():
    torch.manual_seed(0)
    return layer("mamba").build(128, 128)


def test_step_sizes_start_log_uniform_in_their_range(mamba):
    dt = softplus(mamba.dt_bias)
    assert dt.min() >= 1e-3 * (1 - 1e-5)
    assert dt.max() <= 1e-1 * (1 + 1e-5)
    below = (dt.log() < torch.tensor(1e-2).log()).float().mean()
    assert 0.4 < below < 0.6  # the middle of the range in logarithms


def test_states_start_with_the_rates_one_to_n(mamba):
    torch.testing.assert_close(mamba.A_log.exp(), torch.arange(1.0, 5.0).expand(256, 4))
    assert (mamba.D == 1).all()


def test_the_step_size_projection_starts_uniform_by_its_rank(mamba):
    bound = 8**-0.5  # rank: a sixteenth of 128
    assert mamba.dt_proj.weight.shape == (256, 8)
    assert 0.99 * bound < mamba.dt_proj.weight.abs().max() <= bound


def test_weight_decay_spares_the_dynamics(mamba):
    spared = {name for name, p in mamba.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert spared == {"A_log", "D", "dt_bias"}


def test_costs_of_the_reference_size():
    config = layer("mamba")
    assert config.num_params(128, 128) == 107_264
    assert config.state_size(128, 128) == 1024 + 768


def test_rank_rounds_up():
    assert layer("mamba").build(40, 8).dt_proj.weight.shape == (80, 3)


def test_a_long_memory_survives_bfloat16_autocast(mamba):
    """Decays of 0.999 a step would round to 1 in bfloat16."""
    x_bld = torch.randn(1, 512, 128)
    with torch.no_grad():
        mamba.dt_bias.fill_(-7.0)
        exact = mamba(x_bld)
        with torch.autocast("cpu", torch.bfloat16):
            found = mamba(x_bld)
    assert (found.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("knob", ["d_state", "d_conv", "expand"])
def test_sizes_below_one_are_refused(knob):
    with pytest.raises(ArchlabError, match=f"^mamba: {knob}=0: give a whole number of at least 1$"):
        layer("mamba", **{knob: 0})


def test_a_negative_rank_is_refused():
    with pytest.raises(ArchlabError, match=r"^mamba: dt_rank=-1: give a whole number of at least 0$"):
        layer("mamba", dt_rank=-1)
