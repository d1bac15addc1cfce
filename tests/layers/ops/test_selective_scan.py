import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops import selective_scan as module
from archlab.layers.ops.selective_scan import selective_scan


def recurrence(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    state = x.new_zeros(x.shape[1], *a.shape)
    outputs = []
    for t in range(len(x)):
        state = torch.exp(dt[t][:, None] * a) * state + torch.einsum("bc,bn->bnc", dt[t] * x[t], b[t])
        outputs.append(torch.einsum("bnc,bn->bc", state, c[t]) + d * x[t])
    return torch.stack(outputs)


def arguments(length: int, batch: int, channels: int, states: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(length, batch, channels), (length, batch, channels), (states, channels), (length, batch, states)]
    shapes += [shapes[-1], (channels,)]
    x, dt, a, b, c, d = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes)
    return [t.to(dtype).requires_grad_() for t in (x, dt.abs(), -a.abs(), b, c, d)]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 33])
def test_equals_the_recurrence_in_values_and_gradients(length):
    args = arguments(length, 3, 5, 4)
    found, exact = selective_scan(*args), recurrence(*args)
    torch.testing.assert_close(found, exact)
    cotangent = torch.randn_like(exact)
    torch.testing.assert_close(
        torch.autograd.grad((found * cotangent).sum(), args), torch.autograd.grad((exact * cotangent).sum(), args)
    )


def test_gradients_are_the_derivatives():
    assert gradcheck(selective_scan, arguments(10, 2, 2, 3))


def test_tiles_change_the_cost_only(monkeypatch):
    args = arguments(21, 5, 3, 2)
    exact = torch.autograd.grad(selective_scan(*args).square().sum(), args)
    monkeypatch.setattr(module, "TILE_LENGTH", 4)
    monkeypatch.setattr(module, "TILE_STATES", 2 * 4 * 6)  # two of the five sequences a tile
    torch.testing.assert_close(torch.autograd.grad(selective_scan(*args).square().sum(), args), exact)


def test_any_strides_are_taken():
    args = arguments(12, 3, 4, 2)
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) if t.ndim == 3 else t for t in args]
    assert torch.equal(selective_scan(*strided), selective_scan(*args))


@pytest.mark.parametrize("step", [1e-8, 5.0, 200.0])
def test_extreme_step_sizes_stay_finite(step):
    x, dt, *others = arguments(64, 2, 3, 4, torch.float32)
    args = [x, (dt.detach() * step).requires_grad_(), *others]
    y = selective_scan(*args)
    assert torch.isfinite(y).all()
    for gradient in torch.autograd.grad(y.sum(), args):
        assert torch.isfinite(gradient).all()
