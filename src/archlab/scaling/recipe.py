"""How a language model is trained, beside its size, data, batch and learning rate."""

import math
from dataclasses import dataclass
from typing import Literal

from archlab.errors import ArchlabError
from archlab.fields import Fields

_BOUNDS: dict[str, tuple[float, float]] = {
    "warmup": (0, 0.999), "decay": (0, 1), "final_lr": (0, 1), "weight_decay": (0, math.inf), "beta1": (0, 0.9999),
    "beta2": (0, 0.99999), "grad_clip": (0, math.inf), "micro_batch": (0, math.inf), "evaluations": (1, math.inf),
    "validation_tokens": (1, math.inf), "embedding_std": (1e-6, 100),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LMRecipe(Fields):
    """A training recipe of language models. Everything here can change the loss, if by rounding only."""

    schedule: Literal["cosine", "wsd"] = "cosine"
    """Course of the learning rate after the warm-up: cosine, or warm-up, stable, decay (arXiv 2404.06395)."""
    warmup: float = 0.05
    """Share of the steps with linear warm-up, in [0, 1)."""
    decay: float = 0.2
    """Share of the steps over which ``wsd`` decays linearly at the end."""
    final_lr: float = 0.1
    """Learning rate of the last step, as a share of the peak."""
    weight_decay: float = 0.1
    """On matrices only, and never on embeddings or on parameters that a layer exempts."""
    beta1: float = 0.9
    beta2: float = 0.95
    grad_clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast: parameters, optimiser and sensitive operations stay in fp32."""
    micro_batch: int = 0
    """Sequences that a process computes at once, their gradients are accumulated; 0 for its whole share of the batch."""
    recompute: bool = False
    """Keep only what goes in between layers, and compute the rest again in the backward pass (activation checkpointing)."""
    compiled: bool = False
    """Compile every layer with :func:`torch.compile`."""
    kernels: Literal["torch", "fla"] = "torch"
    """What computes the layers' recurrences: PyTorch's operations, or where it has them, on a GPU, the kernels of
    flash-linear-attention (:mod:`archlab.layers.ops.kernels`). These multiply in TF32, with ``precision="bf16"`` in bfloat16."""
    embedding_std: float = 0.02
    """Standard deviation of the token embedding's initialisation."""
    evaluations: int = 1
    """Evenly spaced evaluations on the validation split, the last after the last step."""
    validation_tokens: int = 131_072
    """Tokens of the validation split that are evaluated, if it has so many: always the same."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ArchlabError: naming field, value and what is allowed.
        """
        self._check_types()
        for name, value in self.to_dict().items():
            if isinstance(value, str):
                continue
            low, high = _BOUNDS.get(name, (-math.inf, math.inf))
            if not (low <= value <= high and math.isfinite(value)):
                raise ArchlabError(f"recipe: {name}={value!r}: must be from {low:g} to {high:g}")

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of a step (from 1) as a share of the peak."""
        warmup = math.floor(self.warmup * num_steps)
        if step <= warmup:
            return step / warmup
        if self.schedule == "wsd":
            first = num_steps - max(math.floor(self.decay * num_steps), 1)
            done = max(step - max(first, warmup), 0) / max(num_steps - max(first, warmup), 1)
            return 1 - (1 - self.final_lr) * done
        done = (step - warmup - 1) / max(num_steps - warmup - 1, 1)
        return self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
