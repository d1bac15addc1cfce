import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops.decay import value_decayed_linear_attention


def recurrence(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        state = state * log_decay[:, t].exp()[..., None, :] + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1)


def arguments(length: int, decay: float, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Two sequences, three heads, six channels of keys and five of values; log decays uniform with the mean ``-decay``."""
    generator = torch.Generator().manual_seed(length)
    q, k, v, u = (torch.rand(2, length, 3, d, generator=generator, dtype=torch.float64) for d in (6, 6, 5, 5))
    return [t.to(dtype).requires_grad_() for t in (2 * q - 1, 2 * k - 1, 2 * v - 1, -2 * decay * u)]


def values_and_gradients(f, args: list[Tensor], *rest: int) -> list[Tensor]:
    out = f(*args, *rest)
    cotangent = torch.rand(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad((out * cotangent).sum(), args)]


@pytest.mark.parametrize("chunk", [8, 16, 64])
@pytest.mark.parametrize("length", [1, 7, 33, 64])
def test_equals_the_recurrence_at_every_chunk_size(length, chunk):
    args = arguments(length, decay=0.5)
    for found, exact in zip(
        values_and_gradients(value_decayed_linear_attention, args, chunk), values_and_gradients(recurrence, args), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-11)


def test_gradients_are_the_derivatives():
    args = [t[:1, :, :1].detach().requires_grad_() for t in arguments(11, decay=0.7)]
    assert gradcheck(lambda *a: value_decayed_linear_attention(*a, 8), args)


@pytest.mark.parametrize("decay", [0.0, 0.05, 1.0, 10.0, 60.0, 3e4])
def test_float32_is_accurate_at_every_decay(decay):
    exact = values_and_gradients(recurrence, arguments(45, decay))
    found = values_and_gradients(value_decayed_linear_attention, arguments(45, decay, torch.float32), 16)
    for name, one, other in zip(("output", "dq", "dk", "dv", "dlog_decay"), found, exact, strict=True):
        # With all forgotten at every step nothing depends on the decays: their gradient is compared with the keys'.
        scale = max(other.abs().max(), exact[2].abs().max()) if name == "dlog_decay" else other.abs().max()
        assert (one.double() - other).abs().max() <= 2e-5 * scale, name


def test_later_tokens_change_no_bit():
    args = [t.detach() for t in arguments(40, decay=2.0, dtype=torch.float32)]
    before = value_decayed_linear_attention(*args, 16)
    for changed in (1, 7, 8, 20, 39):
        others = [t.clone() for t in args]
        for t in others:
            t[:, changed] *= 3
        assert torch.equal(value_decayed_linear_attention(*others, 16)[:, :changed], before[:, :changed])
