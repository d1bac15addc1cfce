import math

import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer


def test_costs_of_the_default_size():
    config = layer("mamba-3")
    maps = 128 * (3 * 256 + 2 * 8 + 3 * 8 + 2)
    assert config.num_params(128, 64) == maps + 8 * (2 + 2 * 8) + 2 * 8  # step sizes, skips and biases a head; two norms
    assert config.matrix_state(128, 64) == 256 * 8
    assert config.state_size(128, 64) == 256 * 8 + 8 * (2 + 8) + 256


def test_a_state_turns_by_half_a_circle_at_most_and_has_come_round_after_two_halves():
    """With step sizes of 1 a rotation of pi mirrors a state: what parity needs."""
    module = layer("mamba-3", d_state=4, headdim=4, expand=1).build(4, 8)
    with torch.no_grad():
        module.in_proj.weight.zero_()
        module.in_proj.weight[-1] = 1e3
        module.dt_bias.fill_(math.log(math.expm1(1)))
    _, state = module.step(torch.ones(1, 4), module.init_state(1))
    assert state["angle"].item() == pytest.approx(math.pi)
    _, state = module.step(torch.ones(1, 4), state)
    assert math.cos(state["angle"].item()) == pytest.approx(1)


def test_starts():
    module = layer("mamba-3").build(128, 8)
    dt = torch.nn.functional.softplus(module.dt_bias.detach())
    assert 0.001 * 0.999 < dt.min() < dt.max() < 0.1 * 1.001
    assert all((bias == 1).all() for bias in (module.k_bias, module.q_bias, module.D))


def test_impossible_knobs_are_refused():
    with pytest.raises(ArchlabError, match=r"^mamba-3: d_state=3: half of the states rotate in pairs; give at least 4$"):
        layer("mamba-3", d_state=3)
    with pytest.raises(ArchlabError, match=r"mamba-3\(headdim=48\): the inner width 256 is not divisible by 48; the nearest"):
        layer("mamba-3", headdim=48).validate(128)
