from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.ops import long_conv
from archlab.layers.ops.flop_counter import count_flops
from archlab.layers.ops.long_conv import (
    band,
    causal_conv,
    causal_conv_heads,
    causal_conv_step,
    conv_flops,
    fft_length,
    sum_band,
    sum_diagonals,
    toeplitz,
)


@pytest.fixture(params=["matrix", "transform"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    limit = 10**6 if request.param == "matrix" else 0
    monkeypatch.setattr(long_conv, "TOEPLITZ_MAX_LENGTH", limit)
    monkeypatch.setattr(long_conv, "TOEPLITZ_MAX_LENGTH_HEADS", limit)
    return str(request.param)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


def direct(x_cbl: Tensor, h_cl: Tensor) -> Tensor:
    """Each tap times the signal that many steps earlier."""
    y_cbl = torch.zeros_like(x_cbl)
    for lag in range(x_cbl.shape[-1]):
        y_cbl = y_cbl + h_cl[:, None, lag, None] * F.pad(x_cbl, (lag, 0))[..., : x_cbl.shape[-1]]
    return y_cbl


def gradients(f: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    y = f(*inputs)
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    return (y, *torch.autograd.grad((y * weights).sum(), inputs))


def test_the_number_of_points_is_the_least_that_fits():
    def smooth(n: int) -> bool:
        return n == 1 or any(n % p == 0 and smooth(n // p) for p in (2, 3, 5))

    for length in range(1, 200):
        n = fft_length(length)
        assert n >= 2 * length - 1
        assert n % 2 == 0
        assert smooth(n)
        assert not any(smooth(m) for m in range(max(2, 2 * length - 1), n) if m % 2 == 0)


def test_toeplitz_and_sum_of_diagonals_are_adjoint():
    h, g = random(3, 7), random(3, 7, 7)
    torch.testing.assert_close((toeplitz(h) * g).sum(), (h * sum_diagonals(g)).sum())


@pytest.mark.parametrize("length", [1, 2, 3, 31, 64, 127])
def test_both_forms_equal_the_direct_sum_and_its_gradients(form: str, length: int):
    x, h = random(3, 2, length), random(3, length)
    for found, exact in zip(gradients(causal_conv, x, h), gradients(direct, x, h), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("taps", [1, 2, 7, 16, 17, 40])
@pytest.mark.parametrize("length", [41, 64, 127])
@pytest.mark.parametrize("band", [0, 64])
def test_short_kernels_equal_the_direct_sum_and_its_gradients(
    form: str, monkeypatch: pytest.MonkeyPatch, band: int, length: int, taps: int
):
    monkeypatch.setattr(long_conv, "BAND_MAX_TAPS", band)
    x, h = random(3, 2, length), random(3, taps)
    exact = gradients(lambda x, h: direct(x, F.pad(h, (0, length - taps))), x, h)
    for a, b in zip(gradients(causal_conv, x, h), exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("block", "taps"), [(16, 1), (16, 7), (16, 16), (40, 40)])
def test_band_and_its_sum_are_adjoint_and_a_part_of_the_toeplitz_matrix(block: int, taps: int):
    h, g = random(3, taps), random(3, taps - 1 + block, block)
    torch.testing.assert_close((band(h, block) * g).sum(), (h * sum_band(g, taps)).sum())
    assert torch.equal(band(h, block), toeplitz(F.pad(h, (0, block - 1)))[:, :, taps - 1 :])


@pytest.mark.parametrize(("length", "taps"), [(40, 7), (40, 40), (100, 80), (300, 30), (300, 100)])
def test_flops_are_as_counted(length: int, taps: int):
    class Conv(nn.Module):
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return causal_conv(x, h)

    counted = count_flops(Conv(), random(3, 1, length), random(3, taps))
    assert conv_flops(3, length, taps) == pytest.approx(counted, rel=1e-3)


def test_steps_equal_the_convolution():
    x, h, past = random(4, 2, 20), random(4, 6), torch.zeros(2, 5, 4, dtype=torch.float64)
    y = causal_conv(x, h)
    for t in range(20):
        found, past = causal_conv_step(x[..., t].mT, past, h)
        torch.testing.assert_close(found, y[..., t].mT)


@pytest.mark.parametrize("length", [1, 5, 8])
def test_gradcheck(form: str, length: int):
    assert torch.autograd.gradcheck(causal_conv, (random(3, 2, length), random(3, length)))
    heads = (random(2, 3, 2, length), random(2, 3, 2, length), random(2, 3, 2, length), random(2, length))
    assert torch.autograd.gradcheck(causal_conv_heads, heads)


@pytest.mark.parametrize("square", [8, 128])
@pytest.mark.parametrize(("heads", "head_dim", "length"), [(1, 4, 33), (4, 1, 31), (3, 5, 20)])
def test_heads_equal_a_convolution_of_every_outer_product(monkeypatch, form, square, heads, head_dim, length):
    monkeypatch.setattr(long_conv, "MAX_SQUARE", square)

    def outer_products(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
        rows = []
        for head in range(heads):
            for e in range(head_dim):
                kv = k[head] * v[head, e]
                rows.append((q[head] * direct(kv, h[head].expand(head_dim, -1))).sum(0))
        return torch.stack(rows).view_as(v)

    inputs = [random(heads, head_dim, 2, length) for _ in range(3)]
    inputs = [(x * (i + 1)).detach().requires_grad_() for i, x in enumerate(inputs)]
    h = random(heads, length)
    found, exact = gradients(causal_conv_heads, *inputs, h), gradients(outer_products, *inputs, h)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [127, 1000])
def test_float32_forms_agree(length: int):
    x, h = random(4, 2, length, dtype=torch.float32), random(4, length, dtype=torch.float32)
    exact = long_conv._convolve_by_transform(x.double(), h.double())[0]
    for convolve in (long_conv._convolve_by_matrix, long_conv._convolve_by_transform):
        assert (convolve(x, h)[0] - exact).abs().max() < 1e-5 * exact.abs().max()


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch):
    x, h = random(7, 3, 20), random(7, 20)
    heads = (random(3, 2, 5, 20), random(3, 2, 5, 20), random(3, 2, 5, 20), random(3, 20))
    whole = gradients(causal_conv, x, h) + gradients(causal_conv_heads, *heads)
    monkeypatch.setattr(long_conv, "_BLOCK_BYTES_A_CORE", 1)
    for a, b in zip(gradients(causal_conv, x, h) + gradients(causal_conv_heads, *heads), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("taps", [7, 127])
def test_matrix_form_is_causal_to_the_last_bit(taps: int):
    x, h = random(4, 3, 127, dtype=torch.float32).detach(), random(4, taps, dtype=torch.float32).detach()
    changed = x.clone()
    changed[..., 64:] = 1e6
    assert torch.equal(causal_conv(x, h)[..., :64], causal_conv(changed, h)[..., :64])


def test_bfloat16_signals_are_convolved_in_float32(form: str):
    x, h = random(2, 2, 50).bfloat16(), random(2, 50, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = causal_conv(x, h)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, causal_conv(x.float(), h).bfloat16())
