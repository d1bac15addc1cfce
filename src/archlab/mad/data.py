"""The data of a trial: drawn once for all the trials that a process trains on them, one after the other."""

from functools import lru_cache
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from archlab.tasks import IGNORE, Task, sample
from archlab.tasks.contract import Split


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
    setting: Task, split: Split, num_examples: int, seed: int, device: Literal["cpu", "cuda"]
) -> tuple[Tensor, Tensor]:
    """Inputs and targets ``(num_examples, length)`` on the device, as :func:`archlab.tasks.sample` draws them.

    The three splits that were asked for last are kept: the trials of a setting and seed, whatever their architecture and
    grid point, follow each other. No caller may change them.
    """
    inputs, targets = sample(setting, split, num_examples, seed)
    return torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
