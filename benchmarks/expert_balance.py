"""Balance of a mixture of experts during training, with and without its bias.

    python -m benchmarks.expert_balance

Prints, for two seeds of ``mamba moe`` on in-context recall, the final training loss and the fraction of tokens that the most and
the least used of eight experts get over the last 20 steps, relative to an even fraction.
"""

from typing import Any

import torch
from torch import Tensor, nn

from archlab.architectures import architecture
from archlab.layers.ops import routing
from archlab.mad.recipe import Recipe
from archlab.mad.train import train_together
from archlab.mad.trial import Trial
from archlab.tasks import setting


def uses(seed: int) -> tuple[float, Tensor]:
    """The final training loss, and by expert the share of tokens over the last steps, relative to an even one."""
    shares: list[Tensor] = []

    def record(module: nn.Module, _: Any, weights: Any) -> None:
        if isinstance(module, routing.Router) and torch.is_grad_enabled():
            shares.append((weights > 0).float().flatten(0, -2).mean(0).detach())

    trial = Trial(
        architecture=architecture("mamba moe"),
        setting=setting("in-context-recall", length=32, vocab_size=16),
        recipe=Recipe(steps=300, batch_size=32, evaluations=1, num_evaluation=256),
        dim=64,
        learning_rate=4e-3,
        weight_decay=0.1,
        seed=seed,
    )
    with nn.modules.module.register_module_forward_hook(record):
        ((_, result),) = train_together([trial], lambda *_: None, [{}])
    last = torch.stack(shares[-20:]).mean(0)
    return result.curve[-1].train_loss, last / last.mean()


if __name__ == "__main__":
    print("| balance | seed | training loss | busiest | idlest |\n|---|--:|--:|--:|--:|")
    step = routing._BALANCE
    for name, scale in (("bias", step), ("none", 0.0)):
        routing._BALANCE = scale
        for seed in (0, 1):
            loss, share = uses(seed)
            print(f"| {name} | {seed} | {loss:.3f} | {share.max():.2f} | {share.min():.2f} |", flush=True)
