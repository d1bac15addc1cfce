import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops.decay import chunk_size, decayed_linear_attention
from archlab.layers.ops.decayed_chunks import BLOCK, floor_of_log_decay


def recurrence(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        state = log_decay[:, t].exp()[..., None] * state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1)


def arguments(length: int, decay: float, dtype: torch.dtype = torch.float64, keys: int = 6, values: int = 5) -> list[Tensor]:
    """Two sequences, three heads; log decays uniform with the mean ``-decay``."""
    generator = torch.Generator().manual_seed(length)
    q, k, v, u = (torch.rand(2, length, 3, d, generator=generator, dtype=torch.float64) for d in (keys, keys, values, keys))
    return [t.to(dtype).requires_grad_() for t in (2 * q - 1, 2 * k - 1, 2 * v - 1, -2 * decay * u)]


def values_and_gradients(f, args: list[Tensor], *rest: int) -> list[Tensor]:
    out = f(*args, *rest)
    cotangent = torch.rand(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad((out * cotangent).sum(), args)]


@pytest.mark.parametrize("chunk", [8, 16, 64])
@pytest.mark.parametrize("length", [1, 7, 8, 33, 64])
def test_equals_the_recurrence_at_every_chunk_size(length, chunk):
    args = arguments(length, decay=0.5)
    for found, exact in zip(
        values_and_gradients(decayed_linear_attention, args, chunk), values_and_gradients(recurrence, args), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-11)


def test_gradients_are_the_derivatives():
    args = [t[:1, :, :1].detach().requires_grad_() for t in arguments(11, decay=0.7, keys=3, values=2)]
    assert gradcheck(lambda *a: decayed_linear_attention(*a, 8), args)


@pytest.mark.parametrize("decay", [0.0, 0.05, 1.0, 5.0, 10.0, 60.0, 3e4])
@pytest.mark.parametrize("chunk", [8, 64])
def test_float32_is_accurate_at_every_decay(decay, chunk):
    exact = values_and_gradients(recurrence, arguments(45, decay))
    found = values_and_gradients(decayed_linear_attention, arguments(45, decay, torch.float32), chunk)
    for name, one, other in zip(("output", "dq", "dk", "dv", "dlog_decay"), found, exact, strict=True):
        # With all forgotten at every step nothing depends on the decays: their gradient is compared with the keys'.
        scale = max(other.abs().max(), exact[2].abs().max()) if name == "dlog_decay" else other.abs().max()
        assert (one.double() - other).abs().max() <= 2e-5 * scale, name


def test_a_decay_that_jumps_between_none_and_total_is_held():
    args = arguments(64, decay=0.0, dtype=torch.float32)
    with torch.no_grad():
        args[3][:, ::5] = -1e4
    exact = recurrence(*(t.double() for t in args))
    assert (decayed_linear_attention(*args, 16).double() - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("chunk", [8, 32])
def test_later_tokens_change_no_bit(chunk):
    args = [t.detach() for t in arguments(40, decay=2.0, dtype=torch.float32)]
    before = decayed_linear_attention(*args, chunk)
    for changed in (1, 7, 8, 20, 39):
        others = [t.clone() for t in args]
        for t in others:
            t[:, changed] *= 3
        assert torch.equal(decayed_linear_attention(*others, chunk)[:, :changed], before[:, :changed])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_floored_decay_is_beneath_resolution(dtype):
    assert torch.tensor(floor_of_log_decay(dtype)).exp() <= 1.2 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("length", [1, 5, 64, 127, 1024])
@pytest.mark.parametrize("width", [1, 16, 128, 512])
def test_chunks_are_powers_of_two_that_hold_a_block(width, length):
    chunk = chunk_size(width, width, length)
    assert chunk & (chunk - 1) == 0
    assert BLOCK <= chunk <= max(BLOCK, 2 * length)
