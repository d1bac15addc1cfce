import pytest
import torch
from torch import Tensor

from archlab.layers.ops.delta_rule import delta_rule
from archlab.layers.ops.fenwick import fenwick_delta_rule, fenwick_linear_attention, num_levels
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention


def inputs(length: int, levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(2, length, 3, *shape, generator=generator, dtype=torch.float64)

    generator = torch.Generator().manual_seed(length)
    return draw(4), draw(4), draw(5), -draw().abs(), draw(levels)


def delta_inputs(length: int, levels: int) -> tuple[Tensor, ...]:
    q, k, v, log_decay, weights = inputs(length, levels)
    return q, torch.nn.functional.normalize(k, dim=-1), v, q[..., 0].sigmoid(), log_decay, weights


@pytest.mark.parametrize("length", [1, 2, 8, 9, 33, 64, 100])
def test_the_chunk_changes_nothing(length):
    given = inputs(length, num_levels(length))
    exact = fenwick_linear_attention(*given, 128)
    under_the_delta_rule = delta_inputs(length, num_levels(length))
    exact_delta = fenwick_delta_rule(*under_the_delta_rule, 128)
    for chunk in (1, 2, 8, 32):
        torch.testing.assert_close(fenwick_linear_attention(*given, chunk), exact)
        torch.testing.assert_close(fenwick_delta_rule(*under_the_delta_rule, chunk), exact_delta)


def test_a_token_reads_each_bucket_at_its_weight():
    q, k, v, log_decay, _ = inputs(12, 5)
    log_decay = torch.zeros_like(log_decay)
    weights = torch.zeros(2, 12, 3, 5, dtype=torch.float64)
    for level, bucket in ((0, [11]), (1, [10]), (2, [8, 9]), (3, []), (4, list(range(8)))):
        only = weights.clone()
        only[..., level] = 1
        found = fenwick_linear_attention(q, k, v, log_decay, only, 4)[:, 11]
        scores_bsh = torch.einsum("bhk,bshk->bsh", q[:, 11], k[:, bucket])
        torch.testing.assert_close(found, torch.einsum("bsh,bshv->bhv", scores_bsh, v[:, bucket]))


@pytest.mark.parametrize("levels", [1, 3, 7])
def test_with_equal_weights_it_is_linear_attention_with_decay(levels):
    q, k, v, log_decay, weights = inputs(50, levels)
    found = fenwick_linear_attention(q, k, v, log_decay, torch.ones_like(weights), 8)
    torch.testing.assert_close(found, scalar_decayed_linear_attention(q, k, v, log_decay, 8))


@pytest.mark.parametrize("levels", [1, 3, 7])
def test_with_equal_weights_it_is_the_gated_delta_rule(levels):
    q, k, v, beta, log_decay, weights = delta_inputs(50, levels)
    found = fenwick_delta_rule(q, k, v, beta, log_decay, torch.ones_like(weights), 8)
    rate = beta[..., None]
    torch.testing.assert_close(found, delta_rule(q, -rate * k, k, log_decay[..., None], 8, r_blhv=rate * v))


def test_what_no_key_erases_is_linear_attention():
    q, k, v, beta, log_decay, weights = delta_inputs(8, 4)
    k = torch.eye(8, dtype=k.dtype)[None, :, None].expand(2, 8, 3, 8)
    q = torch.cat([q, q], -1)
    found = fenwick_delta_rule(q, k, v, beta, log_decay, weights, 2)
    torch.testing.assert_close(found, fenwick_linear_attention(q, k, beta[..., None] * v, log_decay, weights, 2))


def test_strong_decays_stay_exact_late_in_a_sequence():
    q, k, v, log_decay, weights = inputs(200, 8)
    log_decay = torch.where(torch.arange(200)[:, None] < 150, -1e4, 0.1 * log_decay)
    exact = fenwick_linear_attention(q, k, v, log_decay, weights, 16)
    found = fenwick_linear_attention(*(t.float() for t in (q, k, v, log_decay, weights)), 16)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_gradients():
    given = tuple(t[:1, :, :1].clone().requires_grad_() for t in inputs(7, 4))
    assert torch.autograd.gradcheck(lambda *tensors: fenwick_linear_attention(*tensors, 2), given)
    given = tuple(t[:1, :, :1].clone().requires_grad_() for t in delta_inputs(7, 4))
    assert torch.autograd.gradcheck(lambda *tensors: fenwick_delta_rule(*tensors, 2), given)
