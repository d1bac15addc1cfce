import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from archlab.layers.ops import members
from archlab.layers.ops.decayed_chunks import BLOCK
from archlab.layers.ops.delta_rule import delta_rule

BESIDE = pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])


def recurrence(q: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, *given: Tensor) -> Tensor:
    k, v = given if len(given) == 2 else (torch.zeros_like(b), given[0])
    state = v.new_zeros(v.shape[0], v.shape[2], a.shape[3], v.shape[3])
    outputs: list[Tensor] = []
    for t in range(v.shape[1]):
        state = log_decay[:, t].exp()[..., None] * state
        write = torch.einsum("bhk,bhkv->bhv", a[:, t], state) + (v[:, t] if len(given) == 1 else 0)
        state = state + torch.einsum("bhk,bhv->bhkv", b[:, t], write) + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1)


def chunked(chunk: int, least_log_decay: float = -torch.inf):
    """:func:`delta_rule` of the arguments of :func:`recurrence`."""

    def run(q: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, *given: Tensor) -> Tensor:
        written = {"r_blhv": given[0]} if len(given) == 1 else {"kv": given}
        return delta_rule(q, a, b, log_decay, chunk, least_log_decay=least_log_decay, **written)

    return run


def arguments(
    length: int, decay: float, beside: bool, dtype: torch.dtype = torch.float64, keys: int = 6, values: int = 5, decays: int = 6
) -> list[Tensor]:
    """Two sequences, three heads, reads and writes of unit length; log decays uniform with the mean ``-decay``."""
    generator = torch.Generator().manual_seed(length)
    widths = (keys, keys, keys, decays, *((keys, values) if beside else (values,)))
    q, a, b, g, *given = (torch.rand(2, length, 3, d, generator=generator, dtype=torch.float64) for d in widths)
    wanted = (
        2 * q - 1,
        F.normalize(2 * a - 1, dim=-1),
        F.normalize(2 * b - 1, dim=-1),
        -2 * decay * g,
        *(2 * x - 1 for x in given),
    )
    return [t.to(dtype).requires_grad_() for t in wanted]


def delta_arguments(length: int, decay: float, dtype: torch.dtype, beta: float, decays: int) -> list[Tensor]:
    """As :func:`arguments`, but what is read is what is written, times ``-beta``."""
    q, _, b, log_decay, r = arguments(length, decay, beside=False, decays=decays)
    return [t.detach().to(dtype).requires_grad_() for t in (q, -beta * b, b, log_decay, r)]


def values_and_gradients(f, args: list[Tensor]) -> list[Tensor]:
    out = f(*args)
    cotangent = torch.rand(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad((out * cotangent).sum(), args, materialize_grads=True)]


@BESIDE
@pytest.mark.parametrize("least_log_decay", [-torch.inf, -1.0])
@pytest.mark.parametrize("decays", [1, 6])
@pytest.mark.parametrize("chunk", [8, 16, 64])
@pytest.mark.parametrize("length", [1, 7, 8, 33, 64])
def test_equals_the_recurrence_at_every_chunk_size(length, chunk, decays, least_log_decay, beside):
    args = arguments(length, 0.5, beside, decays=decays)
    exact = values_and_gradients(recurrence, args)
    for found, expected in zip(values_and_gradients(chunked(chunk, least_log_decay), args), exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@BESIDE
def test_gradients_are_the_derivatives(beside):
    args = [t[:1, :, :1].detach().requires_grad_() for t in arguments(19, 0.7, beside, keys=3, values=2, decays=3)]
    assert gradcheck(chunked(BLOCK), args)


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("decay", [0.0, 0.05, 5.0, 60.0, 3e4])
@pytest.mark.parametrize("decays", [1, 6])
@pytest.mark.parametrize("chunk", [8, 64])
def test_float32_is_accurate_at_every_decay(decay, decays, chunk, beta):
    exact = values_and_gradients(recurrence, delta_arguments(45, decay, torch.float64, beta, decays))
    found = values_and_gradients(chunked(chunk), delta_arguments(45, decay, torch.float32, beta, decays))
    for name, one, other in zip(("output", "dq", "da", "db", "dlog_decay", "dr"), found, exact, strict=True):
        # With all forgotten at every step some gradients vanish: they are then compared with that of r.
        scale = torch.maximum(other.abs().max(), exact[-1].abs().max())
        assert (one.double() - other).abs().max() <= 2e-5 * scale, name


def test_equal_keys_that_flip_what_they_hold_are_solved_for():
    args = delta_arguments(64, 0.0, torch.float64, 2.0, 1)
    with torch.no_grad():
        args[2][:] = args[2][:, :1]
        args[1][:] = -2 * args[2]
    found = chunked(64)(*(t.detach().float() for t in args))
    exact = recurrence(*args)
    assert (found.double() - exact).abs().max() <= 2e-5 * exact.abs().max()


def test_sequences_that_exceed_the_cache_are_taken_one_after_the_other(monkeypatch):
    args = arguments(20, 0.5, beside=True)
    together = values_and_gradients(chunked(8), args)
    monkeypatch.setattr(members, "_CACHED_ENTRIES", 1)
    for found, expected in zip(values_and_gradients(chunked(8), args), together, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@BESIDE
@pytest.mark.parametrize("chunk", [8, 32])
def test_later_tokens_change_no_bit(chunk, beside):
    args = [t.detach() for t in arguments(40, 2.0, beside, dtype=torch.float32)]
    before = chunked(chunk)(*args)
    for changed in (1, 7, 8, 20, 39):
        others = [t.clone() for t in args]
        for t in others:
            t[:, changed] *= 3
        assert torch.equal(chunked(chunk)(*others)[:, :changed], before[:, :changed])


def test_a_write_replaces_what_its_key_held_and_leaves_the_rest():
    first, second = torch.eye(4)[:2]
    k_blhk = torch.stack([first, second, first, torch.zeros(4)])[None, :, None]
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 0.0]])[None, :, None]
    reads = torch.stack([first, first, first, second])[None, :, None]
    found = delta_rule(reads, -k_blhk, k_blhk, torch.zeros_like(k_blhk), BLOCK, r_blhv=values)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0], [3.0, 4.0]]))
