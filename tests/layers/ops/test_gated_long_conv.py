import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from archlab.layers.ops import long_conv
from archlab.layers.ops.gated_long_conv import gated_long_conv, tied_short_conv


def inputs(untied: int, groups: int, inner: int, length: int, num_taps: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(untied * length)
    shapes = [(untied, 2, length), (groups * untied, 1, num_taps), (groups * untied,), (inner, length)]
    return [torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]


def short_by_conv1d(u_pbl: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    copies_bcl = u_pbl.transpose(0, 1).repeat(1, len(bias) // len(u_pbl), 1)
    return F.conv1d(F.pad(copies_bcl, (weight.shape[-1] - 1, 0)), weight, bias, groups=len(bias)).transpose(0, 1)


def gated_by_parts(u_pbl: Tensor, weight: Tensor, bias: Tensor, h_cl: Tensor) -> Tensor:
    x0, x1, v = short_by_conv1d(u_pbl, weight, bias).chunk(3)
    signal = x1 * v
    filtered = [(signal[..., : t + 1] * h_cl[:, None, : t + 1].flip(-1)).sum(-1) for t in range(signal.shape[-1])]
    return x0 * torch.stack(filtered, -1)


def assert_same(f, g, args: list[Tensor]) -> None:  # type: ignore[no-untyped-def]
    y, exact = f(*args), g(*args)
    torch.testing.assert_close(y, exact, rtol=1e-11, atol=1e-11)
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    for a, b in zip(torch.autograd.grad(y, args, weights), torch.autograd.grad(exact, args, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("room", [1, 2**20])
@pytest.mark.parametrize("length", [1, 2, 3, 17])
@pytest.mark.parametrize(
    ("untied", "groups", "inner"), [(12, 4, 16), (24, 1, 8), (8, 3, 8), (15, 6, 30), (3, 7, 7)], ids=lambda n: str(n)
)
def test_equals_the_parts_put_together(
    monkeypatch: pytest.MonkeyPatch, untied: int, groups: int, inner: int, length: int, room: int
):
    monkeypatch.setattr(long_conv, "_BLOCK_BYTES_A_CORE", room)
    u, weight, bias, h = inputs(untied, groups, inner, length)
    assert_same(tied_short_conv, short_by_conv1d, [u, weight, bias])
    assert_same(gated_long_conv, gated_by_parts, [u, weight, bias, h])


@pytest.mark.parametrize("num_taps", [1, 2, 5])
def test_any_number_of_taps(num_taps: int):
    u, weight, bias, _ = inputs(4, 3, 4, 4, num_taps)
    assert_same(tied_short_conv, short_by_conv1d, [u, weight, bias])


def test_gradcheck():
    args = inputs(6, 2, 4, 5)
    assert torch.autograd.gradcheck(tied_short_conv, args[:3])
    assert torch.autograd.gradcheck(gated_long_conv, args)


def test_long_sequences_are_transformed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_conv, "TOEPLITZ_MAX_LENGTH", 8)
    assert_same(gated_long_conv, gated_by_parts, inputs(12, 4, 16, 45))
