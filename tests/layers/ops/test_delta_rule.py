import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops.decayed_chunks import BLOCK
from archlab.layers.ops.delta_rule import delta_rule


def recurrence(r: Tensor, a: Tensor, b: Tensor, log_decay: Tensor) -> Tensor:
    state = r.new_zeros(r.shape[0], r.shape[2], a.shape[3], r.shape[3])
    writes: list[Tensor] = []
    for t in range(r.shape[1]):
        decayed = log_decay[:, t].exp()[..., None] * state
        writes.append(r[:, t] + torch.einsum("bhk,bhkv->bhv", a[:, t], decayed))
        state = decayed + torch.einsum("bhk,bhv->bhkv", b[:, t], writes[-1])
    return torch.stack(writes, 1)


def arguments(length: int, decay: float, dtype: torch.dtype = torch.float64, keys: int = 6, values: int = 5) -> list[Tensor]:
    """Two sequences, three heads, reads and writes of unit length; log decays uniform with the mean ``-decay``."""
    generator = torch.Generator().manual_seed(length)
    r, a, b, g = (torch.rand(2, length, 3, d, generator=generator, dtype=torch.float64) for d in (values, keys, keys, keys))
    wanted = 2 * r - 1, F.normalize(2 * a - 1, dim=-1), F.normalize(2 * b - 1, dim=-1), -2 * decay * g
    return [t.to(dtype).requires_grad_() for t in wanted]


def delta_arguments(length: int, decay: float, dtype: torch.dtype, beta: float) -> list[Tensor]:
    """As :func:`arguments`, but what is read is what is written, times ``-beta``."""
    r, _, b, log_decay = arguments(length, decay)
    return [t.detach().to(dtype).requires_grad_() for t in (r, -beta * b, b, log_decay)]


def values_and_gradients(f, args: list[Tensor], *rest: int) -> list[Tensor]:
    out = f(*args, *rest)
    cotangent = torch.rand(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad((out * cotangent).sum(), args, materialize_grads=True)]


@pytest.mark.parametrize("chunk", [8, 16, 64])
@pytest.mark.parametrize("length", [1, 7, 8, 33, 64])
def test_equals_the_recurrence_at_every_chunk_size(length, chunk):
    args = arguments(length, decay=0.5)
    for found, exact in zip(values_and_gradients(delta_rule, args, chunk), values_and_gradients(recurrence, args), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)


def test_gradients_are_the_derivatives():
    args = [t[:1, :, :1].detach().requires_grad_() for t in arguments(19, decay=0.7, keys=3, values=2)]
    assert gradcheck(lambda *a: delta_rule(*a, BLOCK), args)


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("decay", [0.0, 0.05, 5.0, 60.0, 3e4])
@pytest.mark.parametrize("chunk", [8, 64])
def test_float32_is_accurate_at_every_decay(decay, chunk, beta):
    exact = values_and_gradients(recurrence, delta_arguments(45, decay, torch.float64, beta))
    found = values_and_gradients(delta_rule, delta_arguments(45, decay, torch.float32, beta), chunk)
    for name, one, other in zip(("output", "dr", "da", "db", "dlog_decay"), found, exact, strict=True):
        # With all forgotten at every step the gradients but dr vanish: they are then compared with that one.
        scale = torch.maximum(other.abs().max(), exact[1].abs().max())
        assert (one.double() - other).abs().max() <= 2e-5 * scale, name


@pytest.mark.parametrize("chunk", [8, 32])
def test_later_tokens_change_no_bit(chunk):
    args = [t.detach() for t in arguments(40, decay=2.0, dtype=torch.float32)]
    before = delta_rule(*args, chunk)
    for changed in (1, 7, 8, 20, 39):
        others = [t.clone() for t in args]
        for t in others:
            t[:, changed] *= 3
        assert torch.equal(delta_rule(*others, chunk)[:, :changed], before[:, :changed])


def test_a_write_replaces_what_its_key_held_and_leaves_the_rest():
    first, second = torch.eye(4)[:2]
    k_bhld = torch.stack([first, second, first])[None, :, None]
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])[None, :, None]
    log_decay = torch.zeros_like(k_bhld)
    written = delta_rule(values, -k_bhld, k_bhld, log_decay, BLOCK)
    state = torch.einsum("blhk,blhv->kv", k_bhld, written)
    torch.testing.assert_close(state[:2], torch.tensor([[5.0, 6.0], [3.0, 4.0]]))
