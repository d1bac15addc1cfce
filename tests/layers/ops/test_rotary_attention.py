import pytest
import torch
import torch.nn.functional as F

from archlab.layers.ops import long_conv
from archlab.layers.ops.rotary import rotate
from archlab.layers.ops.rotary_attention import rotary_attention


def plain(qkv_cbl, heads):
    """Rotation and PyTorch's attention, batch first."""
    q, k, v = (x_cbl.permute(1, 2, 0) for x_cbl in qkv_cbl.chunk(3))
    positions, head_dim = torch.arange(q.shape[1]), q.shape[-1] // heads
    q, k = (rotate(x, positions, head_dim) for x in (q, k))
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2).permute(2, 0, 1)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def output_and_gradient(function, qkv_cbl, heads):
    qkv_cbl = qkv_cbl.clone().requires_grad_()
    mixed_cbl = function(qkv_cbl, heads)
    (dqkv_cbl,) = torch.autograd.grad(mixed_cbl.sin().sum(), qkv_cbl)
    return mixed_cbl, dqkv_cbl


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("heads", [1, 3])
def test_is_attention_with_rotary_positions(length, heads):
    qkv_cbl = drawn(3 * 8 * heads, 5, length)
    torch.testing.assert_close(output_and_gradient(rotary_attention, qkv_cbl, heads), output_and_gradient(plain, qkv_cbl, heads))


def test_blocks_do_not_show(monkeypatch):
    qkv_cbl = drawn(24, 5, 40)
    whole = output_and_gradient(rotary_attention, qkv_cbl, 2)
    monkeypatch.setattr(long_conv, "_BLOCK_BYTES_A_CORE", 2 * 2 * 32 * 40 * 8)  # two sequences, the last block has one
    torch.testing.assert_close(output_and_gradient(rotary_attention, qkv_cbl, 2), whole)


def test_gradients_by_differences():
    assert torch.autograd.gradcheck(lambda qkv_cbl: rotary_attention(qkv_cbl, 2), drawn(12, 2, 4).requires_grad_())


def test_scores_that_overflow_an_exponential():
    qkv_cbl = 1e3 * drawn(24, 2, 40).float()
    mixed_cbl, dqkv_cbl = output_and_gradient(rotary_attention, qkv_cbl, 2)
    assert mixed_cbl.isfinite().all()
    assert dqkv_cbl.isfinite().all()


def test_stacked_models_are_as_one_by_one():
    qkv_ncbl = drawn(3, 24, 2, 35)

    def gradient(qkv_cbl):
        return torch.func.grad(lambda x: rotary_attention(x, 2).sin().sum())(qkv_cbl)

    for function in (lambda x: rotary_attention(x, 2), gradient):
        torch.testing.assert_close(torch.func.vmap(function)(qkv_ncbl), torch.stack([function(x) for x in qkv_ncbl]))


def test_operators_keep_their_promises():
    qkv_cbl, mixed_cbl = drawn(24, 2, 35), drawn(8, 2, 35)
    torch.library.opcheck(torch.ops.archlab.rotary_attention.default, (qkv_cbl, 2))
    torch.library.opcheck(torch.ops.archlab.rotary_attention_backward.default, (qkv_cbl, mixed_cbl, mixed_cbl, 2))
