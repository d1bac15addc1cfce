import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops.scan import accumulate, accumulate_in_pairs, mixing_scan


def recurrence(logits: Tensor, candidates: Tensor) -> Tensor:
    state = torch.zeros_like(candidates[0])
    states = []
    for gate, candidate in zip(torch.sigmoid(logits), candidates, strict=True):
        state = (1 - gate) * state + gate * candidate
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize("length", [1, 2, 37])
def test_equals_the_recurrence_in_values_and_gradients(length):
    logits, candidates = (torch.randn(length, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found, exact = mixing_scan(logits, candidates), recurrence(logits, candidates)
    torch.testing.assert_close(found, exact)
    cotangent = torch.randn_like(exact)
    torch.testing.assert_close(
        torch.autograd.grad((found * cotangent).sum(), (logits, candidates)),
        torch.autograd.grad((exact * cotangent).sum(), (logits, candidates)),
    )


def test_gradients_are_the_derivatives():
    assert gradcheck(mixing_scan, [torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)])


def test_arguments_are_left_alone():
    logits, candidates = torch.randn(6, 2, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    before = logits.detach().clone(), candidates.detach().clone()
    mixing_scan(logits, candidates).sum().backward()
    assert torch.equal(logits, before[0])
    assert torch.equal(candidates, before[1])


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_gates_wide_open_and_shut_are_exact(logit):
    candidates = torch.randn(300, 4)
    expected = candidates if logit > 0 else torch.zeros(300, 4)
    assert torch.equal(mixing_scan(torch.full((300, 4), logit), candidates), expected)


def test_accumulate_runs_in_either_direction():
    steps = torch.tensor([1.0, 2.0, 3.0])
    accumulate(torch.tensor([10.0, 100.0]), steps)
    assert steps.tolist() == [1.0, 12.0, 1203.0]
    steps = torch.tensor([1.0, 2.0, 3.0])
    accumulate(torch.tensor([100.0, 10.0]), steps, backwards=True)
    assert steps.tolist() == [3201.0, 32.0, 3.0]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 37])
def test_pairs_give_what_one_after_the_other_gives(length):
    decays, steps = torch.rand(length - 1, 3, 1, dtype=torch.float64), torch.randn(length, 3, 4, dtype=torch.float64)
    found, exact = steps.clone(), steps.clone()
    accumulate_in_pairs(decays, found)
    accumulate(decays, exact)
    torch.testing.assert_close(found, exact)


def test_a_decay_of_zero_forgets_and_one_of_one_adds_up():
    steps = torch.ones(5)
    accumulate_in_pairs(torch.tensor([1.0, 1.0, 0.0, 1.0]), steps)
    assert steps.tolist() == [1.0, 2.0, 3.0, 1.0, 2.0]
