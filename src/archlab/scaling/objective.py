"""The next-token loss of a language model, and the optimiser that minimises it."""

from functools import partial

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
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
            if recipe.compiled:
                layer.compile(dynamic=False)

    def forward(self, tokens_bl: Tensor) -> Tensor:
        """Return the loss of ``(batch, length + 1)`` tokens: the first ``length`` are inputs, the last ``length`` targets."""
        with torch.autocast(tokens_bl.device.type, torch.bfloat16, enabled=self.is_half):
            logits_blv = self.model(tokens_bl[:, :-1])
            return F.cross_entropy(logits_blv.float().flatten(0, 1), tokens_bl[:, 1:].flatten())


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
    """Build a model from its seed on its device, shared by the processes; torch's global generator does not change."""
    with initialising(seed):
        std = recipe.embedding_std
        model = architecture.build(vocab_size=vocab_size, max_length=length, dim=dim, backbone=backbone, embedding_std=std)
    objective = NextToken(model, recipe).to(processes.device)
    processes.shard(objective)
    return objective


def make_lm_optimizer(objective: NextToken, recipe: LMRecipe) -> torch.optim.AdamW:
    """Make a fused AdamW optimiser; its learning rate is set for every step."""
    assert recipe.beta2 != "batch", "resolved before"
    betas = (recipe.beta1, recipe.beta2)
    return make_optimizer(objective, learning_rate=0.0, weight_decay=recipe.weight_decay, betas=betas)
