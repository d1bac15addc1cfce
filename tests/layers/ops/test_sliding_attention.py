import pytest
import torch
import torch.nn.functional as F

from archlab.layers.ops.sliding_attention import BLOCK, _pairs_in_blocks, scored_pairs, sliding_attention


@pytest.mark.parametrize("length", [1, 31, 32, 33, 127, 300])
@pytest.mark.parametrize("window", [1, 2, 32, 33, 34, 65])
@pytest.mark.parametrize("head_dim", [8, 32])
def test_equals_attention_under_a_band_mask(length, window, head_dim):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, length, 2, head_dim, dtype=torch.float64, requires_grad=True) for _ in range(3))
    behind = torch.arange(length)[:, None] - torch.arange(length)
    band = (behind >= 0) & (behind < window)
    expected = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_mask=band).transpose(1, 2)
    found = sliding_attention(q, k, v, window)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(found)
    for a, b in zip(torch.autograd.grad(found, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True):
        torch.testing.assert_close(a, b)


def test_pairs_grow_with_the_window_and_not_with_the_square_of_the_length():
    assert scored_pairs(1024, 33, 8) == 32 * 32 + 31 * 32 * 64
    assert scored_pairs(20, 8, 8) == 400
    assert scored_pairs(127, 33, 128) == 127**2


@pytest.mark.parametrize("window", [1, 2, 31, 32, 33, 34, 64, 65, 500])
def test_pairs_are_those_of_every_block(window):
    for length in range(1, 200):
        blocks = [range(length)[start : start + BLOCK] for start in range(0, length, BLOCK)]
        pairs = sum(len(block) * len(range(max(0, block[0] - window + 1), block[-1] + 1)) for block in blocks)
        assert _pairs_in_blocks(length, window) == pairs
