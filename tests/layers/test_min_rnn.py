import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_default_size():
    assert layer("min-gru").num_params(128, 128) == 2 * 128**2
    assert layer("min-lstm").num_params(128, 128) == 3 * 128**2
    assert layer("min-gru", expand=2).num_params(128, 128) == 6 * 128**2
    assert layer("min-lstm", expand=2).state_size(128, 128) == 256


@pytest.mark.parametrize("name", ["min-gru", "min-lstm"])
def test_states_are_means_of_positive_candidates(name):
    """So none exceeds what was written: the gates sum to one."""
    torch.manual_seed(0)
    module, x_bld = layer(name).build(16, 64), 3 * torch.randn(2, 64, 16)
    candidates = module.in_proj(x_bld)[..., -16:]
    written = torch.where(candidates >= 0, candidates + 0.5, candidates.sigmoid())
    y_bld = module(x_bld)
    assert (y_bld > 0).all()
    assert (y_bld <= written.cummax(1).values * (1 + 1e-6)).all()


def test_two_closed_gates_of_min_lstm_share_by_their_logits():
    logits = layer("min-lstm").build(1, 1)._logits(torch.tensor([-300.0, -500.0]), torch.tensor([-300.0, -499.0]))
    torch.testing.assert_close(logits, torch.tensor([0.0, 1.0]))


def test_an_expansion_below_one_is_refused():
    with pytest.raises(ArchlabError, match=r"^min-lstm: expand=0: give a whole number of at least 1$"):
        layer("min-lstm", expand=0)
