"""A model in training: its examples, its loss, its optimiser."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archlab.architectures.backbones import Backbone
from archlab.machine import Device
from archlab.mad.recipe import Recipe, at_levels, by_level
from archlab.tasks import IGNORE, Task, sample
from archlab.tasks.contract import Split
from archlab.training.optimiser import update


class Examples(NamedTuple):
    """Input of a training step: the tokens of every sequence, the positions of its answers and the answers.

    The number of answers varies; short rows are padded, so that no step has to wait for the device to say how many.
    """

    inputs: Tensor
    """Token ids ``(n, length)``."""
    positions: Tensor
    """``(n, answers)``, padded with any position."""
    labels: Tensor
    """``(n, answers)``, padded with -100."""

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor) -> Self:
        """From token ids and targets ``(n, length)``, which are -100 where nothing is asked."""
        unasked = targets == IGNORE
        most = targets.shape[1] - int(unasked.sum(1).min())
        positions = unasked.to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        return cls(inputs, positions, targets.gather(1, positions))

    def padded(self, answers: int) -> "Examples":
        """The same with rows of so many answers, at least as many as there are."""
        pad = (0, answers - self.labels.shape[1])
        return Examples(self.inputs, F.pad(self.positions, pad), F.pad(self.labels, pad, value=IGNORE))

    def take(self, rows: Tensor) -> "Examples":
        """Those with these indices ``(m,)``."""
        return Examples(*(x[rows] for x in self))


@lru_cache(maxsize=3)
def split_tensors(
    setting: Task, split: Split, num_examples: int, seed: int, device: Device, levels: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Inputs and targets ``(num_examples, length)`` on the device, as :func:`archlab.tasks.sample` draws them; not to be changed.

    With ``levels``, sequences of the first level come first, as many of each. The three splits that were asked for last are kept:
    the trials of a setting and seed follow each other in a process.
    """
    drawn = zip(at_levels(setting, levels), by_level(levels, range(num_examples)), strict=True)
    parts = [sample(one, split, len(rows), seed) for one, rows in drawn]
    inputs, targets = (np.concatenate(arrays) if len(parts) > 1 else arrays[0] for arrays in zip(*parts, strict=True))
    return torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)


class Objective(nn.Module):
    """The training loss of a model.

    What follows the last layer that mixes positions runs at the positions that have a target only.
    """

    def __init__(self, model: Backbone, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.is_half = recipe.precision == "bf16"

    def forward(self, ids_bl: Tensor, positions_ba: Tensor, labels_ba: Tensor) -> Tensor:
        """The mean cross-entropy over all answers, in nats; arguments as :class:`Examples` has them."""
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
        self._stream: torch.cuda.Stream | None = None
        # A smaller last batch is another program, not a reason to make one for every size.
        compiled = torch.compile(self.objective, dynamic=False) if self.recipe.compiled else self.objective
        self.loss: Callable[..., Tensor] = compiled

    def capturing_stream(self) -> torch.cuda.Stream:
        """The CUDA stream of all captures of this learner: the memory that libraries keep belongs to a stream."""
        self._stream = self._stream or torch.cuda.Stream(self.examples.inputs.device)  # type: ignore[no-untyped-call]
        return self._stream

    def update(self) -> None:
        """Take the optimiser's step, as the recipe says."""
        update(self.model, self.optimizer, self.recipe.grad_clip)
