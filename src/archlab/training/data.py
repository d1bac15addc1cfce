"""The data of a trial: drawn once for all the trials that a process trains on them, one after the other."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from archlab.tasks import Split, Task, sample


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
