import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops.recursive_ridge import recursive_ridge


def arguments(length: int, heads: int = 3, width: int = 5) -> list[Tensor]:
    """Two sequences: right-hand sides, keys, keys times their rates, log decays, ridges."""
    generator = torch.Generator().manual_seed(length)
    q, k = (torch.randn(2, length, heads, width, generator=generator, dtype=torch.float64) for _ in range(2))
    rate, decay = (torch.rand(2, length, heads, generator=generator, dtype=torch.float64) for _ in range(2))
    ridge = 0.5 + torch.rand(heads, width, generator=generator, dtype=torch.float64)
    return [t.requires_grad_() for t in (q, k, rate[..., None] * k, decay.log(), ridge)]


def recurrence(q: Tensor, k: Tensor, w: Tensor, log_decay: Tensor, ridge: Tensor) -> Tensor:
    matrix, solutions = torch.zeros_like(torch.diag_embed(k[:, 0])), []
    for t in range(q.shape[1]):
        matrix = log_decay[:, t].exp()[..., None, None] * matrix + torch.einsum("bhi,bhj->bhij", w[:, t], k[:, t])
        solutions.append(torch.linalg.solve(matrix + torch.diag_embed(ridge), q[:, t]))
    return torch.stack(solutions, 1)


@pytest.mark.parametrize("width", [5, 40])
@pytest.mark.parametrize("length", [1, 21, 70])
def test_equals_the_recurrence(length, width):
    args = arguments(length, width=width)
    exact, found = recurrence(*args), recursive_ridge(*args, 8)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-11)
    cotangent = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = [torch.autograd.grad((out * cotangent).sum(), args) for out in (found, exact)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_gradients_are_the_derivatives():
    q, k, w, log_decay, ridge = arguments(9, heads=1, width=3)
    rate = (w / k).detach()[..., :1].requires_grad_()
    assert gradcheck(lambda q, k, rate, *rest: recursive_ridge(q, k, rate * k, *rest, 8), (q, k, rate, log_decay, ridge))
