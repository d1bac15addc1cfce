import pytest
import torch

from archlab.layers.ops.rotary import rotate


def rotated_in_the_plane(x, positions, head_dim):
    """Channels j and j + d/2 of every head as one complex number."""
    half = head_dim // 2
    heads = x.unflatten(-1, (-1, 2, half))
    rates = 10_000 ** (-torch.arange(half, dtype=torch.float64) / half)
    turn = torch.exp(1j * positions[:, None] * rates)[:, None]
    turned = torch.complex(heads[..., 0, :], heads[..., 1, :]) * turn
    return torch.stack((turned.real, turned.imag), -2).flatten(-3)


@pytest.mark.parametrize("head_dim", [2, 8, 24])
def test_each_pair_of_channels_turns_by_its_angle(head_dim):
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    positions = torch.tensor([0, 1, 7, 100, 1000])
    torch.testing.assert_close(rotate(x, positions, head_dim), rotated_in_the_plane(x, positions, head_dim))


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 16, dtype=torch.float64)
    scores = [(rotate(q, torch.tensor([s + 5]), 16) * rotate(k, torch.tensor([s]), 16)).sum() for s in (0, 3, 500)]
    torch.testing.assert_close(scores, scores[:1] * 3)


def test_first_and_second_derivatives():
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    positions = torch.tensor([0, 4, 9])
    assert torch.autograd.gradcheck(lambda t: rotate(t, positions, 4).sin(), x)
    assert torch.autograd.gradgradcheck(lambda t: rotate(t, positions, 4).sin(), x)


def test_low_precision_is_kept_but_angles_are_not_rounded():
    x = torch.randn(1, 2, 8).bfloat16()
    turned = rotate(x, torch.tensor([0, 1001]), 8)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.float(), rotate(x.float(), torch.tensor([0, 1001]), 8), atol=0.05, rtol=0)
