import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from archlab.layers.ops import short_conv
from archlab.layers.ops.short_conv import ShortConv


def conv1d(conv: ShortConv, x_blc: torch.Tensor) -> torch.Tensor:
    full = nn.functional.conv1d(x_blc.transpose(1, 2), conv.weight, conv.bias, padding=conv.kernel_size - 1, groups=conv.channels)
    return full[..., : x_blc.shape[1]].transpose(1, 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_equals_conv1d_in_values_and_gradients(kernel_size, length, bias):
    conv = ShortConv(6, kernel_size, bias).double()
    x = torch.randn(2, length, 6, dtype=torch.float64, requires_grad=True)
    wanted = (x, *conv.parameters())
    cotangent = torch.randn_like(x)
    found = torch.autograd.grad((conv(x) * cotangent).sum(), wanted)
    exact = torch.autograd.grad((conv1d(conv, x) * cotangent).sum(), wanted)
    torch.testing.assert_close(conv(x), conv1d(conv, x))
    torch.testing.assert_close(found, exact)


def test_gradients_are_the_derivatives():
    conv = ShortConv(3, 4).double()
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w, b: functional_call(conv, {"weight": w, "bias": b}, (x,)), (x, conv.weight, conv.bias))


def test_time_major_memory_is_taken_and_kept():
    conv = ShortConv(5, 4)
    x_lbc = torch.randn(7, 2, 5)
    y_blc = conv(x_lbc.transpose(0, 1))
    assert y_blc.transpose(0, 1).is_contiguous()
    assert torch.equal(y_blc, conv(x_lbc.transpose(0, 1).contiguous()))


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("entries", [1, 24, 50, 10_000])
def test_pieces_do_not_show(entries, time_major, monkeypatch):
    monkeypatch.setattr(short_conv, "_PIECE", entries)
    conv = ShortConv(6, 4).double()
    x = torch.randn(3, 9, 6, dtype=torch.float64)
    x = (x.transpose(0, 1).contiguous().transpose(0, 1) if time_major else x).requires_grad_()
    cotangent = torch.randn(6, 3, 9, dtype=torch.float64).permute(1, 2, 0)
    wanted = (x, *conv.parameters())
    torch.testing.assert_close(conv(x), conv1d(conv, x))
    found, exact = (torch.autograd.grad(y, wanted, cotangent) for y in (conv(x), conv1d(conv, x)))
    torch.testing.assert_close(found, exact)


def test_gradients_of_taps_are_summed_in_float32():
    conv = ShortConv(1, 1, bias=False).bfloat16()
    x = torch.ones(512, 4, 1, dtype=torch.bfloat16)
    (dweight,) = torch.autograd.grad(conv(x).sum(), conv.weight)
    assert dweight.item() == 2048


def test_steps_equal_the_whole():
    conv = ShortConv(5, 4).double()
    x_blc = torch.randn(2, 9, 5, dtype=torch.float64)
    state = conv.init_state(2)
    assert state.shape == (2, 3, 5)
    steps = []
    for x_bc in x_blc.unbind(1):
        y_bc, state = conv.step(x_bc, state)
        steps.append(y_bc)
    torch.testing.assert_close(torch.stack(steps, 1), conv(x_blc))
    assert torch.equal(state, x_blc[:, -3:])


def test_initialised_as_conv1d():
    torch.manual_seed(0)
    conv = ShortConv(8, 4)
    torch.manual_seed(0)
    reference = nn.Conv1d(8, 8, 4, groups=8)
    assert torch.equal(conv.weight, reference.weight)
    assert torch.equal(conv.bias, reference.bias)
