import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops.scan import accumulate, diagonal_scan, mixing_scan


def recurrence(decay: Tensor, inputs: Tensor) -> Tensor:
    state = torch.zeros_like(inputs[0])
    states = []
    for a, b in zip(decay.unbind(0), inputs.unbind(0), strict=True):
        state = a * state + b
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize("length", [1, 2, 37])
def test_equals_the_recurrence_in_values_and_gradients(length):
    decay = torch.randn(length, 3, 4, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(length, 3, 4, dtype=torch.float64, requires_grad=True)
    found, exact = diagonal_scan(decay, inputs), recurrence(decay, inputs)
    torch.testing.assert_close(found, exact)
    cotangent = torch.randn_like(exact)
    torch.testing.assert_close(
        torch.autograd.grad((found * cotangent).sum(), (decay, inputs)),
        torch.autograd.grad((exact * cotangent).sum(), (decay, inputs)),
    )


def test_gradients_are_the_derivatives_of_a_broadcast_decay():
    decay = torch.randn(5, 2, 1, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(diagonal_scan, (decay, inputs))


def test_inputs_are_left_alone():
    decay, inputs = torch.rand(6, 2), torch.randn(6, 2)
    before = decay.clone(), inputs.clone()
    diagonal_scan(decay, inputs)
    assert torch.equal(decay, before[0])
    assert torch.equal(inputs, before[1])


def test_vanishing_decays_forget_without_overflow():
    decay = torch.zeros(300, 4)
    inputs = torch.randn(300, 4)
    assert torch.equal(diagonal_scan(decay, inputs), inputs)
    tiny = torch.full((300, 4), 1e-30)
    assert torch.isfinite(diagonal_scan(tiny, inputs)).all()


def test_accumulate_runs_in_either_direction():
    steps = torch.tensor([1.0, 2.0, 3.0])
    accumulate([torch.tensor(10.0), torch.tensor(100.0)], steps.unbind(0))
    assert steps.tolist() == [1.0, 12.0, 1203.0]
    steps = torch.tensor([1.0, 2.0, 3.0])
    accumulate([torch.tensor(10.0), torch.tensor(100.0)], steps.unbind(0)[::-1])
    assert steps.tolist() == [3201.0, 32.0, 3.0]


def test_mixing_scan_equals_the_diagonal_one_in_values_and_gradients():
    torch.manual_seed(0)
    logits, candidates = (torch.randn(9, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(mixing_scan, (logits, candidates))
    expected = diagonal_scan(torch.sigmoid(-logits), torch.sigmoid(logits) * candidates)
    torch.testing.assert_close(mixing_scan(logits, candidates), expected)
