import pytest
import torch
import torch.nn.functional as F

from archlab.layers.ops.routing import Router


def make_router(num=8, active=2, reference=False):
    torch.manual_seed(0)
    return Router(16, num, active, reference)


@pytest.mark.parametrize(("num", "active"), [(8, 2), (5, 3), (4, 4)])
def test_the_chosen_share_a_softmax_and_the_others_get_nothing(num, active):
    router, x = make_router(num, active), torch.randn(3, 7, 16)
    weights = router(x)
    logits = router.linear(x)
    assert torch.equal((weights > 0).sum(-1), torch.full((3, 7), active))
    best = logits.topk(active, dim=-1)
    assert torch.allclose(weights.gather(-1, best.indices), best.values.softmax(-1))


def test_the_bias_chooses_and_does_not_weigh():
    router, x = make_router(num=3), torch.randn(200, 16)
    with torch.no_grad():
        router.balance[0] = 100.0
        router.linear.weight[0] = 0.0
    weights = router(x)
    assert torch.all(weights[:, 0] > 0)
    other = router.linear(x)[:, 1:].max(-1).values
    assert torch.allclose(weights[:, 0], torch.sigmoid(-other), atol=1e-6)


def test_the_bias_has_the_excess_of_tokens_for_gradient_whatever_the_loss():
    router, x = make_router(num=4), torch.randn(50, 16)
    tokens = (router(x) > 0).sum(0)
    for scale in (0.0, 1.0, 1e3):
        (gradient,) = torch.autograd.grad(scale * router(x).square().sum(), router.balance)
        assert torch.allclose(gradient, 1e-6 * (tokens - 25.0))


def test_an_optimiser_evens_out_a_router_that_has_collapsed():
    torch.manual_seed(0)
    router = Router(16, 8, 2)
    with torch.no_grad():
        router.linear.weight[:, 0] = torch.tensor([3.0, 3.0, 0, 0, 0, 0, 0, 0])
    x = torch.randn(512, 16)
    x[:, 0] = 1.0
    optimizer = torch.optim.AdamW(router.parameters(), lr=0.03, weight_decay=0.0)
    busiest = []
    for _ in range(300):
        weights = router(x)
        busiest.append(float((weights > 0).float().mean(0).max()))
        F.mse_loss(weights.sum(-1), torch.ones(512)).backward()  # a task that does not care
        optimizer.step()
        optimizer.zero_grad()
    assert busiest[0] > 0.9
    assert busiest[-1] < 0.35  # a quarter is even


def test_the_references_router_weighs_those_that_are_not_chosen_too():
    router, x = make_router(reference=True), torch.randn(1000, 16)
    weights, logits = router(x), router.linear(x)
    least = logits.topk(2, dim=-1).values[:, -1:]
    assert torch.allclose(weights.sum(-1), torch.ones(1000))
    assert torch.all(weights > 0)
    assert weights[logits < least].sum() / 1000 > 0.5  # most of the weight
