"""A model in training: its loss, its optimiser, its examples."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archlab.architectures.backbones import Backbone
from archlab.mad.data import Examples
from archlab.mad.recipe import Recipe
from archlab.tasks import IGNORE
from archlab.training.optimiser import update


class Objective(nn.Module):
    """The training loss of a model.

    What follows the last layer that mixes positions runs at the positions that have a target only.
    """

    def __init__(self, model: Backbone, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.is_half = recipe.precision == "bf16"

    def forward(self, ids_bl: Tensor, positions_ba: Tensor, labels_ba: Tensor) -> Tensor:
        """The mean cross-entropy over all answers, in nats; arguments as :class:`archlab.mad.data.Examples` has them."""
        with torch.autocast(ids_bl.device.type, torch.bfloat16, enabled=self.is_half):
            features = self.model.features(ids_bl)
            first = torch.arange(0, ids_bl.numel(), ids_bl.shape[1], device=ids_bl.device)
            # twice as fast, backward included, as indexing with a mask
            picked = features.flatten(0, 1).index_select(0, (positions_ba + first[:, None]).flatten())
            logits = self.model.logits(picked.view(*positions_ba.shape, -1))
            return F.cross_entropy(logits.float().flatten(0, 1), labels_ba.flatten(), ignore_index=IGNORE)


@dataclass(eq=False)
class Learner:
    """A model in training, with its optimiser and the examples that it learns from."""

    model: Backbone
    optimizer: torch.optim.Optimizer
    examples: Examples
    recipe: Recipe

    def __post_init__(self) -> None:
        self.objective = Objective(self.model, self.recipe)
        # A smaller last batch is another program, not a reason to make one for every size.
        compiled = torch.compile(self.objective, dynamic=False) if self.recipe.compiled else self.objective
        self.loss: Callable[..., Tensor] = compiled

    def update(self) -> None:
        """Take the optimiser's step, as the recipe says."""
        update(self.model, self.optimizer, self.recipe.grad_clip)
