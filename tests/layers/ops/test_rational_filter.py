import pytest
import torch
from torch import Tensor

from archlab.layers.ops.rational_filter import RationalFilter


def with_reflections(values: list[float], max_length: int) -> RationalFilter:
    """Three filters with the same denominator, numerators drawn at random, in float64."""
    kernels = RationalFilter(3, max_length, len(values)).double()
    with torch.no_grad():
        kernels.reflection.copy_(torch.tensor(values, dtype=torch.float64).atanh())
        kernels.numerator.copy_(torch.randn(3, len(values), generator=torch.Generator().manual_seed(0)))
    return kernels


def infinite_response(numerator_cn: Tensor, denominator_cn: Tensor, length: int) -> Tensor:
    """``h_t = b_t - sum_j a_j h_{t-j}``, one tap after another."""
    taps = [torch.zeros_like(numerator_cn[:, 0])]
    for t in range(1, length):
        own = numerator_cn[:, t - 1] if t <= numerator_cn.shape[1] else torch.zeros_like(taps[0])
        taps.append(own - sum(denominator_cn[:, j - 1] * taps[t - j] for j in range(1, min(t, denominator_cn.shape[1]) + 1)))
    return torch.stack(taps, -1)


def test_reflections_give_every_denominator_with_poles_inside_the_unit_circle():
    k1, k2, k3 = 0.9, -0.8, 0.3
    first, second = k1 * (1 + k2), k2
    expected = torch.tensor([1, first + k3 * second, second + k3 * first, k3], dtype=torch.float64)
    torch.testing.assert_close(with_reflections([k1, k2, k3], 8).denominators(), expected.expand(3, -1))
    kernels = RationalFilter(100, 8, 6).double()
    with torch.no_grad():
        kernels.reflection.normal_(std=1.5, generator=torch.Generator().manual_seed(0))
    companion = torch.cat([-kernels.denominators()[:, None, 1:], torch.eye(6).double()[:-1].expand(100, -1, -1)], 1)
    radii = torch.linalg.eigvals(companion.detach()).abs().amax(-1)
    assert radii.max() < 1
    assert radii.max() > 0.99


@pytest.mark.parametrize("reflections", [[-0.5], [0.9, -0.8, 0.3], [-0.99, 0.9], [0.5, -0.999]], ids=str)
@pytest.mark.parametrize("max_length", [1, 2, 3, 4, 16, 31])
def test_kernels_are_the_infinite_response_of_the_recurrent_numerators(reflections: list[float], max_length: int):
    kernels = with_reflections(reflections, max_length)
    expected = infinite_response(kernels.recurrent_numerators(), kernels.denominators()[:, 1:], max_length)
    torch.testing.assert_close(kernels(max_length), expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(kernels(max_length)[:, :1], kernels(1))


def test_kernels_are_the_response_of_the_trained_numerators_wrapped_around():
    kernels = with_reflections([0.4, -0.5], max_length=10)
    response = infinite_response(kernels.numerator, kernels.denominators()[:, 1:], 1 + 10 * 60)
    wrapped = response[:, 1:].unflatten(-1, (60, 10)).sum(-2)  # taps 1 ... 10, 11 ... 20, and so on
    torch.testing.assert_close(kernels(10)[:, 1:], wrapped[:, :9], rtol=1e-10, atol=1e-10)


def test_nothing_wraps_where_the_response_has_died_away():
    kernels = with_reflections([0.3, -0.2], max_length=64)
    torch.testing.assert_close(kernels.recurrent_numerators(), kernels.numerator, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rest", [(), (2, 3)])
def test_steps_run_the_recurrence_also_past_the_maximum_length(rest: tuple[int, ...]):
    kernels = with_reflections([0.9, -0.5, 0.2], max_length=8)
    inputs = torch.randn(20, 2, 3, *rest, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    taps = infinite_response(kernels.recurrent_numerators(), kernels.denominators()[:, 1:], len(inputs))
    memory = torch.zeros(2, 3, 3, *rest, dtype=torch.float64)
    for t in range(len(inputs)):
        found, memory = kernels.step(inputs[t], memory)
        expected = torch.einsum("sbc...,cs->bc...", inputs[: t + 1], taps[:, : t + 1].flip(-1))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_filters_start_silent_and_do_not_decay():
    kernels = RationalFilter(4, max_length=16, order=3)
    assert sum(p.numel() for p in kernels.parameters()) == RationalFilter.num_params(4, 16, 3) == 24
    assert all(p._no_weight_decay for p in kernels.parameters())
    taps = kernels(16)
    assert not taps.count_nonzero()
    taps.sum().backward()
    assert kernels.numerator.grad.count_nonzero() == 12


def test_gradcheck():
    kernels = with_reflections([0.9, -0.4], max_length=7)

    def taps(numerator: Tensor, reflection: Tensor) -> Tensor:
        return torch.func.functional_call(kernels, {"numerator": numerator, "reflection": reflection}, (7,))

    assert torch.autograd.gradcheck(taps, tuple(kernels.parameters()))
