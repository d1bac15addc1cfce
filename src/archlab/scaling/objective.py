"""The next-token loss of a language model, and the optimiser that minimises it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from archlab.architectures import Architecture
from archlab.architectures.backbones import Backbone
from archlab.scaling.processes import Processes
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_plan import LMBackbone
from archlab.training.context import initialising
from archlab.training.optimiser import make_optimizer


class NextToken(nn.Module):
    """The mean cross-entropy of every next token, in nats."""

    def __init__(self, model: Backbone, recipe: LMRecipe) -> None:
        super().__init__()
        self.model = model
        self.is_half = recipe.precision == "bf16"
        for layer in model.layers:
            if recipe.recompute:
                layer.forward = _recomputed(layer.forward)
            if recipe.compiled:
                layer.compile(dynamic=False)

    def forward(self, tokens_bl: Tensor) -> Tensor:
        """Return the loss of ``(batch, length + 1)`` tokens: the first ``length`` are inputs, the last ``length`` targets."""
        with torch.autocast(tokens_bl.device.type, torch.bfloat16, enabled=self.is_half):
            mixed_bld = self.model.mix_channels(self.model.features(tokens_bl[:, :-1]))
            mixed_nd, targets = mixed_bld.flatten(0, 1), tokens_bl[:, 1:].flatten()
            chunk = _tokens_at_once(mixed_nd, self.model.embedding.num_embeddings)
            if chunk >= len(targets):
                return F.cross_entropy(self.model.unembed(mixed_bld).float().flatten(0, 1), targets)
            summed = _recomputed(self._summed)
            parts = zip(torch.split(mixed_nd, chunk), torch.split(targets, chunk), strict=True)
            return torch.stack([summed(*part) for part in parts]).sum() / len(targets)

    def _summed(self, mixed_nd: Tensor, targets_n: Tensor) -> Tensor:
        """The summed cross-entropy of some tokens."""
        return F.cross_entropy(self.model.unembed(mixed_nd).float(), targets_n, reduction="sum")


_LOGITS_AT_ONCE = 1 << 28
"""Logits that a GPU holds in float32 at once, and again in the backward pass."""


def _tokens_at_once(mixed_nd: Tensor, vocab_size: int) -> int:
    """Tokens whose logits are computed together: all on a CPU, where the rounding must not depend on it."""
    most = max(1, _LOGITS_AT_ONCE // vocab_size)
    return len(mixed_nd) if mixed_nd.is_cpu else math.ceil(len(mixed_nd) / math.ceil(len(mixed_nd) / most))


def _recomputed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, whose intermediate results are computed again in the backward pass; the compiler goes through it."""

    def recomputed(*args: Tensor) -> Tensor:
        found: Tensor = checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
        return found

    return recomputed


def make_objective(
    architecture: Architecture,
    *,
    vocab_size: int,
    length: int,
    dim: int,
    seed: int,
    recipe: LMRecipe,
    processes: Processes,
    backbone: LMBackbone = "language-model",
) -> NextToken:
    """Build a model from its seed on its device, shared by the processes; torch's global generator does not change.

    Only the first process of those that share it holds the whole model, in the memory of its host; no accelerator ever does.
    """
    with initialising(seed), torch.device("cpu" if processes.is_first else "meta"):
        std = recipe.embedding_std
        model = architecture.build(vocab_size=vocab_size, max_length=length, dim=dim, backbone=backbone, embedding_std=std)
    objective = NextToken(model, recipe)
    processes.shard(objective)
    return objective


def make_lm_optimizer(objective: NextToken, recipe: LMRecipe) -> torch.optim.AdamW:
    """Make a fused AdamW optimiser; its learning rate is set for every step."""
    assert recipe.beta2 != "batch", "resolved before"
    betas = (recipe.beta1, recipe.beta2)
    return make_optimizer(objective, learning_rate=0.0, weight_decay=recipe.weight_decay, betas=betas)
