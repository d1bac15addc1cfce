import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_reference_sizes():
    config = layer("hgrn2")
    assert config.num_params(128, 128) == 4 * 128**2 + 128
    assert config.state_size(128, 128) == 2048


@pytest.mark.parametrize("logit", [-1e4, -80.0, 1e4])
def test_closed_gates_leave_the_lower_bound_and_open_gates_write_nothing(logit):
    module = layer("hgrn2", expand_ratio=4, lower_bound=0.5).build(4, 1)
    with torch.no_grad():
        module.f_proj.weight.copy_(logit * torch.eye(4))
        _, k, _, log_decay = module._project(torch.ones(1, 4))
    torch.testing.assert_close(log_decay.exp(), torch.full_like(k, 0.5 if logit < 0 else 1.0))
    torch.testing.assert_close(k, torch.full_like(k, 0.5 if logit < 0 else 0.0))


def test_impossible_bounds_and_expansions_are_refused():
    with pytest.raises(ArchlabError, match=r"^hgrn2: lower_bound=1.0: give a number of at least 0 and below 1$"):
        layer("hgrn2", lower_bound=1.0)
    with pytest.raises(ArchlabError, match=r"^hgrn2\(expand_ratio=48\): width 128 is not divisible by 48;.*expand_ratio=32$"):
        layer("hgrn2", expand_ratio=48).build(128, 8)
