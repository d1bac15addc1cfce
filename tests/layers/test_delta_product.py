import pytest
import torch

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.delta_product import DeltaProduct


@pytest.mark.parametrize("name", ["deltanet", "gated-deltanet"])
def test_one_step_a_token_is_the_delta_rule(name):
    of_one_step = layer(name.replace("deltanet", "deltaproduct"), householders=1, allow_neg_eigval=False)
    assert of_one_step.num_params(64, 20) == layer(name).num_params(64, 20)
    assert of_one_step.flops(64, 20) == layer(name).flops(64, 20)
    module, single, x_bld = of_one_step.build(64, 20), layer(name).build(64, 20), torch.randn(2, 20, 64)
    module.load_state_dict(single.state_dict())
    torch.testing.assert_close(module(x_bld), single(x_bld))


def test_two_steps_of_rate_two_turn_the_state_and_a_single_one_mirrors_it():
    module = DeltaProduct(2, 1, 2, 1, allow_neg_eigval=True, householders=2)
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    state = {"kv": torch.randn(1, 1, 2, 2), "conv": module.conv.init_state(1)}

    def project(_x, _qkv):
        keys = torch.stack([first, second])[None, :, None]
        return torch.ones(1, 1, 2), keys, torch.zeros_like(keys), torch.full((1, 2, 1, 1), 2.0), torch.zeros(1, 1, 1)

    module._project = project
    turned = module.step(torch.zeros(1, 2), state)[1]["kv"][0, 0]
    mirrors = [torch.eye(2) - 2 * torch.outer(k, k) for k in (first, second)]
    torch.testing.assert_close(turned, mirrors[1] @ mirrors[0] @ state["kv"][0, 0])
    assert torch.linalg.det(mirrors[1] @ mirrors[0]) == pytest.approx(1.0)


def test_knobs_that_are_impossible_are_refused():
    with pytest.raises(ArchlabError, match=r"^deltaproduct: householders=0: give a whole number of at least 1$"):
        layer("deltaproduct", householders=0)
    with pytest.raises(ArchlabError, match=r"gated-deltaproduct\(heads=3\): width 64 is not divisible by 3"):
        layer("gated-deltaproduct", heads=3).validate(64)


def test_eigenvalues_may_be_negative_unless_told_otherwise():
    assert layer("deltaproduct").build(16, 4).max_beta == 2
    assert layer("gated-deltaproduct", allow_neg_eigval=False).build(16, 4).max_beta == 1
