import pytest
import torch
import torch.nn.functional as F

from archlab.errors import ArchlabError
from archlab.layers import layer


@pytest.mark.parametrize("base_lr", [0.0, -1.0, float("nan"), float("inf")])
def test_inner_learning_rates_that_learn_nothing_are_refused(base_lr):
    with pytest.raises(ArchlabError, match=r"^ttt-linear: base_lr=.*: give a (finite )?number above 0$"):
        type(layer("ttt-linear"))(base_lr=base_lr)


def test_the_inner_model_learns_what_is_repeated():
    """Read with its keys it answers their values ever better."""
    torch.manual_seed(0)
    module = layer("ttt-linear", heads=1, mini_batch=4).build(16, 64)
    k = torch.randn(1, 1, 4, 16)
    v, rate, scales = k + F.layer_norm(torch.randn_like(k), (16,)), torch.full((1, 1, 1, 4), 1 / 16), module._scales()
    inner, losses = module.inner.expand(1, -1, -1, -1), []
    with torch.no_grad():
        for _ in range(8):
            answer, gradient = module._mini_batch(inner, inner, k, k, v, rate, 0 * scales)
            losses.append(float((answer - v).square().mean()))
            inner = inner - scales[-1] * gradient
    assert losses[0] > 1
    assert losses[-1] < 0.1 * losses[0]
