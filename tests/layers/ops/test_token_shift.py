import torch

from archlab.layers.ops.token_shift import before


def test_positions_hold_what_was_before_them():
    x = torch.arange(12.0).view(2, 3, 2)
    expected = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [2.0, 3.0]], [[0.0, 0.0], [6.0, 7.0], [8.0, 9.0]]])
    assert torch.equal(before(x), expected)
    assert torch.equal(before(x[..., None]), expected[..., None])
    assert torch.equal(before(x[:, :1]), torch.zeros(2, 1, 2))
