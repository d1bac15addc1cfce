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
    k1, target = F.pad(torch.randn(1, 1, 4, 16), (0, 1), value=1.0), F.layer_norm(torch.randn(1, 1, 4, 16), (16,))
    scales = module._scales()
    inner, losses = module.inner.expand(1, -1, -1, -1), []
    with torch.no_grad():
        for _ in range(8):
            z, gradient = module._mini_batch(inner, inner, 0 * scales, k1, k1, k1 / 16, target)
            losses.append(float((F.layer_norm(z, (16,)) - target).square().mean()))
            inner = inner - scales[-1] * gradient
    assert losses[0] > 1
    assert losses[-1] < 0.1 * losses[0]
