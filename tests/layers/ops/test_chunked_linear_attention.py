import pytest
import torch

from archlab.layers.ops.linear_attention import linear_attention


@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
@pytest.mark.parametrize("length", [1, 5, 33, 64])
def test_equals_masked_scores_at_every_chunk_size(length, chunk):
    q, k, v = (torch.randn(3, length, d, dtype=torch.float64, requires_grad=True) for d in (4, 4, 5))
    numerator, denominator = linear_attention(q, k, v, chunk)
    scores = (q @ k.transpose(1, 2)).tril()
    torch.testing.assert_close(numerator, scores @ v)
    torch.testing.assert_close(denominator, scores.sum(-1, keepdim=True))
    found = torch.autograd.grad(numerator.square().sum() + denominator.sum(), (q, k, v))
    exact = torch.autograd.grad((scores @ v).square().sum() + scores.sum(), (q, k, v))
    torch.testing.assert_close(found, exact)


def test_later_tokens_change_no_bit():
    q, k, v = (torch.randn(2, 40, 4) for _ in range(3))
    before = linear_attention(q, k, v, 8)
    for changed in (1, 8, 21, 39):
        others = [t.clone() for t in (q, k, v)]
        for t in others:
            t[:, changed] *= 3
        for old, new in zip(before, linear_attention(*others, 8), strict=True):
            assert torch.equal(old[:, :changed], new[:, :changed])
